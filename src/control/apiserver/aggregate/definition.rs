//! The APIServices themselves: defaults, validation, table (`apiregistration/{v1/defaults.go,validation}`,
//! `registry/apiservice`).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::names;
use crate::api::status::Cause;
use crate::control::apiserver::registry::strategies::PLAIN;
use crate::control::apiserver::registry::strategies::edit::{copy, default, existing, set};
use crate::control::apiserver::registry::{Column, Strategy};
use crate::control::apiserver::table::cells::{self, AGE, NAME, items, string, text};
use crate::control::apiserver::validation::metadata;

pub static STRATEGY: Strategy = Strategy {
    default: |object| {
        if let Some(service) = existing(object, "spec").and_then(|spec| existing(spec, "service")) {
            default(service, "port", 443);
        }
    },
    validate: check,
    prepare_create: |object| set(object, "status", json!({})),
    prepare_update: |object, old| copy(object, old, "status"),
    columns: COLUMNS,
    row: cells,
    ..PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    text("Service", "The reference to the service that hosts this API endpoint."),
    text("Available", "Whether this service is available."),
    AGE,
];

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let hosted = match service.is_object() {
        true => format!("{}/{}", string(service, "/namespace"), string(service, "/name")),
        false => "Local".to_owned(),
    };
    let known = items(object, "/status/conditions").iter().find(|one| one["type"] == "Available");
    let available = match known.map(|one| (string(one, "/status"), string(one, "/reason"))) {
        None => "Unknown".to_owned(),
        Some((status, reason)) if status == "True" || reason.is_empty() => status.to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![cells::name(object), hosted.into(), available.into(), cells::age(object, now)]
}

fn check(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let (group, version) = (string(spec, "/group"), string(spec, "/version"));
    let mut causes = metadata::any(object, old);
    let wanted = format!("{version}.{group}");
    if string(object, "/metadata/name") != wanted {
        let why = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], &why));
    }
    if group.is_empty() && version != "v1" {
        let why = "only v1 may have an empty group and it better be legacy kube";
        causes.push(Cause::required("spec.group", why));
    }
    if !group.is_empty() {
        let reasons = names::dns1123_subdomain(group);
        causes.extend(reasons.iter().map(|why| Cause::invalid("spec.group", &spec["group"], why)));
    }
    let reasons = names::dns1035_label(version);
    causes.extend(reasons.iter().map(|why| Cause::invalid("spec.version", &json!(version), why)));
    for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let own = spec[field].as_i64().unwrap_or_default();
        if !(1..=most).contains(&own) {
            let why = format!("must be positive and less than {most}");
            causes.push(Cause::invalid(format!("spec.{field}"), &json!(own), &why));
        }
    }
    trust(spec, &mut causes);
    causes
}

/// What is said of the service and whether it is believed.
fn trust(spec: &Value, causes: &mut Vec<Cause>) {
    let bundle = string(spec, "/caBundle");
    let blind = spec["insecureSkipTLSVerify"] == true;
    if !spec["service"].is_object() {
        if !bundle.is_empty() {
            let size = json!(format!("{} bytes", bundle.len() / 4 * 3));
            causes.push(Cause::invalid("spec.caBundle", &size, "local APIServices may not have a caBundle"));
        }
        if blind {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            causes.push(Cause::invalid("spec.insecureSkipTLSVerify", &json!(true), why));
        }
        return;
    }
    for field in ["namespace", "name"] {
        if string(&spec["service"], &format!("/{field}")).is_empty() {
            causes.push(Cause::required(format!("spec.service.{field}"), ""));
        }
    }
    if blind && !bundle.is_empty() {
        let why = "may not be true if caBundle is present";
        causes.push(Cause::invalid("spec.insecureSkipTLSVerify", &json!(true), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_service_says_whom_it_is_of_and_how_it_is_believed() {
        let mut object = json!({"metadata": {"name": "v1.farm.io"}, "spec": {"group": "farm.io", "version": "v1",
            "groupPriorityMinimum": 1000, "versionPriority": 15, "service": {"name": "a", "namespace": "b"}}});
        assert!(check(&object, None).is_empty(), "{:?}", check(&object, None));
        object["spec"]["version"] = json!("v2");
        object["spec"]["versionPriority"] = json!(1001);
        let texts: Vec<String> = check(&object, None).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.name: Invalid value: \"v1.farm.io\": must be `spec.version+\".\"+spec.group`: \"v2.farm.io\"",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            ]
        );
        object["status"] =
            json!({"conditions": [{"type": "Available", "status": "False", "reason": "ServiceNotFound"}]});
        assert_eq!(cells(&object, Timestamp::now())[1..3], [json!("b/a"), json!("False (ServiceNotFound)")]);
    }
}
