//! Admission by others: webhook configurations and policies
//! (`pkg/apis/admissionregistration/{v1/defaults.go,validation}`).

use serde_json::{Value, json};

use super::PLAIN;
use crate::api::status::Cause;
use crate::control::apiserver::admission::policies;
use crate::control::apiserver::cel::Expression;
use crate::control::apiserver::registry::Strategy;
use crate::control::apiserver::validation::metadata;

pub const WEBHOOKS: Strategy = Strategy {
    default: default_webhooks,
    validate: check_webhooks,
    prepare_create: first,
    prepare_update: count_webhooks,
    ..PLAIN
};
pub const POLICY: Strategy = Strategy {
    default: default_policy,
    validate: check_policy,
    prepare_create: first,
    prepare_update: count_policy,
    ..PLAIN
};
pub const MUTATING_POLICY: Strategy = Strategy {
    default: default_mutating,
    validate: check_mutating,
    prepare_create: first,
    prepare_update: count_policy,
    ..PLAIN
};
pub const MUTATING_BINDING: Strategy = Strategy { default: default_binding, validate: check_bound, ..PLAIN };
pub const BINDING: Strategy = Strategy { default: default_binding, validate: check_binding, ..PLAIN };

fn first(object: &mut Value) {
    if object["metadata"].is_object() {
        object["metadata"]["generation"] = json!(1);
    }
}

fn count(object: &mut Value, old: &Value, field: &str) {
    if object["metadata"].is_object() && object[field] != old[field] {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
    }
}

fn count_webhooks(object: &mut Value, old: &Value) {
    count(object, old, "webhooks");
}

fn count_policy(object: &mut Value, old: &Value) {
    if object.is_object() {
        object["status"] = old["status"].clone();
    }
    count(object, old, "spec");
}

fn set(object: &mut Value, field: &str, value: Value) {
    if object.is_object() && object[field].is_null() {
        object[field] = value;
    }
}

fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

fn default_webhooks(object: &mut Value) {
    let mutating = object["kind"] == "MutatingWebhookConfiguration";
    for hook in items(object, "webhooks") {
        set(hook, "failurePolicy", json!("Fail"));
        set(hook, "matchPolicy", json!("Equivalent"));
        set(hook, "namespaceSelector", json!({}));
        set(hook, "objectSelector", json!({}));
        set(hook, "timeoutSeconds", json!(10));
        if mutating {
            set(hook, "reinvocationPolicy", json!("Never"));
        }
        if hook["clientConfig"]["service"].is_object() {
            set(&mut hook["clientConfig"]["service"], "port", json!(443));
        }
        items(hook, "rules").for_each(|rule| set(rule, "scope", json!("*")));
    }
}

fn default_matching(matching: &mut Value) {
    if matching.is_object() {
        set(matching, "matchPolicy", json!("Equivalent"));
        set(matching, "namespaceSelector", json!({}));
        set(matching, "objectSelector", json!({}));
        for field in ["resourceRules", "excludeResourceRules"] {
            items(matching, field).for_each(|rule| set(rule, "scope", json!("*")));
        }
    }
}

fn default_policy(object: &mut Value) {
    if object["spec"].is_object() {
        set(&mut object["spec"], "failurePolicy", json!("Fail"));
        object.pointer_mut("/spec/matchConstraints").into_iter().for_each(default_matching);
    }
}

fn default_binding(object: &mut Value) {
    object.pointer_mut("/spec/matchResources").into_iter().for_each(default_matching);
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn check_webhooks(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::any(object, old);
    let mut seen = Vec::new();
    for (index, hook) in list(&object["webhooks"]).iter().enumerate() {
        let path = format!("webhooks[{index}]");
        let name = hook["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{path}.name"), ""));
        } else if name.split('.').filter(|part| !part.is_empty()).count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            causes.push(Cause::invalid(format!("{path}.name"), &hook["name"], why));
        }
        metadata::unique(&mut causes, &mut seen, &hook["name"], format!("{path}.name"));
        if list(&hook["admissionReviewVersions"]).is_empty() {
            let why = "must specify one of v1, v1beta1";
            causes.push(Cause::required(format!("{path}.admissionReviewVersions"), why));
        } else if !list(&hook["admissionReviewVersions"]).iter().any(|own| own == "v1") {
            let why = "must include at least one of v1, v1beta1";
            causes.push(Cause::invalid(
                format!("{path}.admissionReviewVersions"),
                &hook["admissionReviewVersions"],
                why,
            ));
        }
        match hook["sideEffects"].as_str() {
            Some("None" | "NoneOnDryRun") => {}
            None | Some("") => {
                causes.push(Cause::required(
                    format!("{path}.sideEffects"),
                    "must specify one of None, NoneOnDryRun",
                ));
            }
            Some(_) => {
                let supported = &["None", "NoneOnDryRun"];
                causes.push(Cause::unsupported(
                    format!("{path}.sideEffects"),
                    &hook["sideEffects"],
                    supported,
                ));
            }
        }
        if !hook["timeoutSeconds"].as_i64().is_none_or(|seconds| (1..=30).contains(&seconds)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            causes.push(Cause::invalid(format!("{path}.timeoutSeconds"), &hook["timeoutSeconds"], why));
        }
        check_client(&hook["clientConfig"], &format!("{path}.clientConfig"), &mut causes);
        let known = ["object", "oldObject", "request", "authorizer"];
        check_expressions(&hook["matchConditions"], &format!("{path}.matchConditions"), &known, &mut causes);
    }
    causes
}

fn check_client(config: &Value, path: &str, causes: &mut Vec<Cause>) {
    match (config["url"].as_str(), config["service"].is_object()) {
        (Some(url), false) if !url.starts_with("https://") => {
            let scheme = url.split("://").next().unwrap_or_default();
            let why = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            causes.push(Cause::invalid(format!("{path}.url"), &json!(scheme), why));
        }
        (Some(_), false) => {}
        (None, true) => {
            for field in ["name", "namespace"] {
                if config["service"][field].as_str().unwrap_or_default().is_empty() {
                    causes.push(Cause::required(
                        format!("{path}.service.{field}"),
                        &format!("service {field} is required"),
                    ));
                }
            }
        }
        _ => causes.push(Cause::required(path, "exactly one of url or service is required")),
    }
}

fn check_expressions(conditions: &Value, path: &str, known: &[&str], causes: &mut Vec<Cause>) {
    for (index, one) in list(conditions).iter().enumerate() {
        let source = one["expression"].as_str().unwrap_or_default();
        let path = format!("{path}[{index}].expression");
        if source.trim().is_empty() {
            causes.push(Cause::required(path, "expression is not specified"));
        } else if let Err(why) = Expression::compile_for(source, known) {
            causes.push(Cause::invalid(path, &one["expression"], &why));
        }
    }
}

fn check_policy(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = metadata::any(object, old);
    if list(&spec["validations"]).is_empty() && list(&spec["auditAnnotations"]).is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        causes.push(Cause::required("spec.validations", why));
    }
    if list(&spec["matchConstraints"]["resourceRules"]).is_empty() {
        causes.push(Cause::required("spec.matchConstraints.resourceRules", ""));
    }
    for field in ["matchConditions", "variables", "validations"] {
        check_expressions(&spec[field], &format!("spec.{field}"), &policies::KNOWN, &mut causes);
    }
    causes
}

fn check_binding(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = metadata::any(object, old);
    if spec["policyName"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required("spec.policyName", ""));
    }
    let actions = list(&spec["validationActions"]);
    if actions.is_empty() {
        causes.push(Cause::required("spec.validationActions", ""));
    }
    for (index, action) in actions.iter().enumerate() {
        if !matches!(action.as_str(), Some("Deny" | "Warn" | "Audit")) {
            let path = format!("spec.validationActions[{index}]");
            causes.push(Cause::unsupported(path, action, &["Audit", "Deny", "Warn"]));
        }
    }
    if actions.contains(&json!("Deny")) && actions.contains(&json!("Warn")) {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        causes.push(Cause::invalid("spec.validationActions", &spec["validationActions"], why));
    }
    causes
}

fn default_mutating(object: &mut Value) {
    default_policy(object);
    if object["spec"].is_object() {
        set(&mut object["spec"], "reinvocationPolicy", json!("Never"));
    }
}

fn check_bound(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::any(object, old);
    if object["spec"]["policyName"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required("spec.policyName", ""));
    }
    causes
}

fn check_mutating(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let mut causes = metadata::any(object, old);
    if list(&spec["matchConstraints"]["resourceRules"]).is_empty() {
        causes.push(Cause::required("spec.matchConstraints.resourceRules", ""));
    }
    for field in ["matchConditions", "variables"] {
        check_expressions(&spec[field], &format!("spec.{field}"), &policies::KNOWN, &mut causes);
    }
    if list(&spec["mutations"]).is_empty() {
        causes.push(Cause::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (index, mutation) in list(&spec["mutations"]).iter().enumerate() {
        check_mutation(mutation, &format!("spec.mutations[{index}]"), &mut causes);
    }
    if !matches!(spec["reinvocationPolicy"].as_str(), Some("Never" | "IfNeeded")) {
        let known = &["IfNeeded", "Never"];
        causes.push(Cause::unsupported("spec.reinvocationPolicy", &spec["reinvocationPolicy"], known));
    }
    causes
}

/// The one patch a mutation names, and its expression.
fn check_mutation(mutation: &Value, path: &str, causes: &mut Vec<Cause>) {
    let (field, other) = match mutation["patchType"].as_str() {
        Some("ApplyConfiguration") => ("applyConfiguration", "jsonPatch"),
        Some("JSONPatch") => ("jsonPatch", "applyConfiguration"),
        None | Some("") => return causes.push(Cause::required(format!("{path}.patchType"), "")),
        Some(_) => {
            let known = &["ApplyConfiguration", "JSONPatch"];
            return causes.push(Cause::unsupported(
                format!("{path}.patchType"),
                &mutation["patchType"],
                known,
            ));
        }
    };
    let kind = mutation["patchType"].as_str().unwrap_or_default();
    if !mutation[other].is_null() {
        let why = format!("must not be specified when patchType is {kind}");
        causes.push(Cause::invalid(format!("{path}.{other}"), &mutation[other], &why));
    }
    if mutation[field].is_null() {
        let why = format!("must be specified when patchType is {kind}");
        return causes.push(Cause::required(format!("{path}.{field}"), &why));
    }
    let expression = &mutation[field]["expression"];
    let path = format!("{path}.{field}.expression");
    match expression.as_str().unwrap_or_default().trim() {
        "" => causes.push(Cause::required(path, "")),
        source => {
            if let Err(why) = policies::mutating::compiles(source) {
                causes.push(Cause::invalid(path, expression, &why));
            }
        }
    }
}
