//! ResourceQuotas and LimitRanges (`pkg/apis/core/validation`).

use serde_json::{Map, Value};

use super::{each, immutable, join, metadata, required, text};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::api::status::Cause;

/// Names without a prefix that a quota may bound.
const BOUNDED: [&str; 21] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "limitranges",
];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub fn resource_quota(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    for (name, amount) in spec["hard"].as_object().into_iter().flatten() {
        let field = format!("spec.hard[{name}]");
        if !name.contains('/') && !BOUNDED.contains(&name.as_str()) {
            causes.push(Cause::invalid(
                field.as_str(),
                &name.as_str().into(),
                "must be a standard resource for quota",
            ));
        }
        let Some(parsed) = quantity(amount) else { continue };
        if parsed.is_negative() {
            causes.push(Cause::invalid(field.as_str(), amount, "must be greater than or equal to 0"));
        }
        let counted = !name.contains("cpu") && !name.contains("memory") && !name.contains("storage");
        if counted && parsed.milli() % 1000 != 0 {
            causes.push(Cause::invalid(field, amount, "must be an integer"));
        }
    }
    for (path, scope) in each(spec, "scopes", "spec") {
        if !scope.as_str().is_some_and(|scope| SCOPES.contains(&scope)) {
            causes.push(Cause::invalid(path, scope, "unsupported scope"));
        }
    }
    if let Some(old) = old {
        immutable(&mut causes, spec, &old["spec"], "scopes", "spec");
    }
    causes
}

fn quantity(amount: &Value) -> Option<Quantity> {
    Quantity::parse(amount.as_str()?).ok()
}

pub fn limit_range(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let mut seen = Vec::new();
    for (path, item) in each(&object["spec"], "limits", "spec") {
        required(&mut causes, item, "type", &path);
        let kind = text(item, "type");
        if seen.contains(&kind) {
            causes.push(super::duplicate(join(&path, "type"), &item["type"]));
        }
        seen.push(kind);
        if kind == "Pod" {
            for side in ["default", "defaultRequest"] {
                if item[side].as_object().is_some_and(|map| !map.is_empty()) {
                    let why = "may not be specified when `type` is 'Pod'";
                    causes.push(Cause::forbidden(join(&path, side), why));
                }
            }
        }
        if kind == "PersistentVolumeClaim"
            && item["min"]["storage"].is_null()
            && item["max"]["storage"].is_null()
        {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            causes.push(Cause::required(join(&path, "limits"), why));
        }
        ordered(&mut causes, item, &path);
    }
    causes
}

/// Least, default request, default, most: each no more than the next.
fn ordered(causes: &mut Vec<Cause>, item: &Value, path: &str) {
    let words =
        [("min", "min"), ("defaultRequest", "default request"), ("default", "default"), ("max", "max")];
    let empty = Map::new();
    for (index, (low, low_word)) in words.iter().enumerate() {
        for (high, high_word) in &words[index + 1..] {
            let lows = item[*low].as_object().unwrap_or(&empty);
            for (name, amount) in lows {
                let (Some(a), Some(b)) = (quantity(amount), quantity(&item[*high][name])) else { continue };
                if a > b {
                    let why = format!("{low_word} value {a} is greater than {high_word} value {b}");
                    let field = if *high == "max" { *low } else { *high };
                    let field = if *low == "min" && *high == "max" { "min" } else { field };
                    let value = &item[field][name];
                    causes.push(Cause::invalid(format!("{path}.{field}[{name}]"), value, &why));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn say(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(|one| format!("{}: {}", one.field, one.message)).collect()
    }

    #[test]
    fn bounds_are_known_names_and_in_order() {
        let quota =
            |hard: Value| json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}});
        assert_eq!(
            say(&resource_quota(&quota(json!({"pods": "4", "count/jobs.batch": "2"})), None)),
            [""; 0]
        );
        assert_eq!(
            say(&resource_quota(&quota(json!({"podz": "1"})), None)),
            [r#"spec.hard[podz]: Invalid value: "podz": must be a standard resource for quota"#]
        );
        let range = json!({"metadata": {"name": "l", "namespace": "a"}, "spec": {"limits": [
            {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}});
        assert_eq!(
            say(&limit_range(&range, None)),
            [r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#]
        );
    }
}
