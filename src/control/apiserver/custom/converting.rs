//! What a definition says of converting between its versions (`validateCustomResourceConversion`).

use serde_json::{Value, json};

use super::text;
use crate::api::status::Cause;

/// Fills in what is not said.
pub fn default(conversion: &mut Value) {
    if conversion["webhook"]["clientConfig"]["service"].is_object()
        && conversion["webhook"]["clientConfig"]["service"]["port"].is_null()
    {
        conversion["webhook"]["clientConfig"]["service"]["port"] = json!(443);
    }
}

pub fn check(conversion: &Value, causes: &mut Vec<Cause>) {
    let webhook = &conversion["webhook"];
    match text(conversion, "strategy") {
        "None" if !webhook.is_null() => {
            let why = "should not be set when strategy is not set to Webhook";
            causes.push(Cause::forbidden("spec.conversion.webhook", why));
        }
        "None" => {}
        "Webhook" if webhook["clientConfig"].is_null() => {
            let why = "required when strategy is set to Webhook";
            causes.push(Cause::required("spec.conversion.webhook.clientConfig", why));
        }
        "Webhook" => {
            client(&webhook["clientConfig"], causes);
            versions(webhook, causes);
        }
        "" => causes.push(Cause::required("spec.conversion.strategy", "")),
        _ => {
            let known = &["None", "Webhook"];
            causes.push(Cause::unsupported("spec.conversion.strategy", &conversion["strategy"], known));
        }
    }
}

fn client(config: &Value, causes: &mut Vec<Cause>) {
    const PATH: &str = "spec.conversion.webhook.clientConfig";
    match (config["url"].as_str(), config["service"].is_object()) {
        (Some(url), false) if !url.starts_with("https://") => {
            let scheme = url.split("://").next().unwrap_or_default();
            let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            causes.push(Cause::invalid(format!("{PATH}.url"), &json!(scheme), why));
        }
        (Some(_), false) => {}
        (None, true) => {
            for field in ["name", "namespace"] {
                if text(&config["service"], field).is_empty() {
                    let why = format!("service {field} is required");
                    causes.push(Cause::required(format!("{PATH}.service.{field}"), &why));
                }
            }
        }
        _ => causes.push(Cause::required(PATH, "exactly one of url or service is required")),
    }
}

fn versions(webhook: &Value, causes: &mut Vec<Cause>) {
    const PATH: &str = "spec.conversion.webhook.conversionReviewVersions";
    let list = webhook["conversionReviewVersions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if list.is_empty() {
        causes.push(Cause::required(PATH, ""));
    } else if !list.iter().any(|one| one == "v1" || one == "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        causes.push(Cause::invalid(PATH, &webhook["conversionReviewVersions"], why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_somewhere_and_speaks_a_known_version() {
        let texts = |conversion: Value| {
            let mut causes = Vec::new();
            check(&conversion, &mut causes);
            causes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(texts(json!({"strategy": "None"})).is_empty());
        assert_eq!(
            texts(json!({"strategy": "Webhook"})),
            [
                "spec.conversion.webhook.clientConfig: Required value: required when strategy is set to Webhook"
            ]
        );
        let webhook = json!({"clientConfig": {"url": "https://a/b"}, "conversionReviewVersions": ["v9"]});
        assert_eq!(texts(json!({"strategy": "Webhook", "webhook": webhook})).len(), 1);
    }
}
