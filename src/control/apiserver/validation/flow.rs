//! FlowSchemas, PriorityLevelConfigurations, RuntimeClasses (`pkg/apis/{flowcontrol,node}/validation`).

use serde_json::Value;

use super::{each, immutable, invalid_all, join, metadata, one_of, required, text};
use crate::api::names;
use crate::api::status::Cause;

pub fn flow_schema(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    if !spec["matchingPrecedence"].as_i64().is_some_and(|number| (1..=10_000).contains(&number)) {
        let why = "must be a value between 1 and 10000, inclusive";
        causes.push(Cause::invalid("spec.matchingPrecedence", &spec["matchingPrecedence"], why));
    }
    if spec["matchingPrecedence"] == 1 && text(&object["metadata"], "name") != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        causes.push(Cause::invalid("spec.matchingPrecedence", &spec["matchingPrecedence"], why));
    }
    required(&mut causes, &spec["priorityLevelConfiguration"], "name", "spec.priorityLevelConfiguration");
    let method = &spec["distinguisherMethod"];
    one_of(&mut causes, method, "type", "spec.distinguisherMethod", &["ByNamespace", "ByUser"]);
    for (path, rule) in each(spec, "rules", "spec") {
        let none = |field: &str| rule[field].as_array().is_none_or(Vec::is_empty);
        if none("subjects") {
            causes.push(Cause::required(join(&path, "subjects"), "subjects must contain at least one value"));
        }
        if none("resourceRules") && none("nonResourceRules") {
            let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
            causes.push(Cause::required(path, why));
        }
    }
    causes
}

pub fn priority_level(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    match text(spec, "type") {
        "Exempt" if spec["limited"].is_object() => {
            let why = "must be nil if the type is not Limited";
            causes.push(Cause::forbidden("spec.limited", why));
        }
        "Limited" if spec["limited"].is_null() => {
            causes.push(Cause::required("spec.limited", "must not be empty when type is Limited"));
        }
        "Exempt" => {}
        "Limited" => limited(&mut causes, &spec["limited"], "spec.limited"),
        _ => causes.push(Cause::unsupported("spec.type", &spec["type"], &["Exempt", "Limited"])),
    }
    causes
}

fn limited(causes: &mut Vec<Cause>, limited: &Value, path: &str) {
    let shares = &limited["nominalConcurrencyShares"];
    if shares.as_i64().is_some_and(|number| number < 0) {
        let why = "must be a non-negative integer";
        causes.push(Cause::invalid(join(path, "nominalConcurrencyShares"), shares, why));
    }
    let (response, path) = (&limited["limitResponse"], join(path, "limitResponse"));
    match text(response, "type") {
        "Reject" if response["queuing"].is_object() => {
            causes.push(Cause::forbidden(
                join(&path, "queuing"),
                "must be nil if limited.limitResponse.type is not Limited",
            ));
        }
        "Queue" if response["queuing"].is_null() => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            causes.push(Cause::required(join(&path, "queuing"), why));
        }
        "Reject" | "Queue" => {}
        _ => causes.push(Cause::unsupported(join(&path, "type"), &response["type"], &["Queue", "Reject"])),
    }
}

pub fn runtime_class(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    causes.extend(invalid_all("handler", &object["handler"], names::dns1123_label(text(object, "handler"))));
    if let Some(old) = old {
        immutable(&mut causes, object, old, "handler", "");
    }
    causes
}
