//! Namespaces, Nodes, Leases, PriorityClasses.

use serde_json::Value;

use super::{duplicate, each, invalid_all, join, metadata, one_of, required, text};
use crate::api::names;
use crate::api::status::Cause;

pub fn namespace(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    metadata::check(object, old, names::dns1123_label)
}

pub fn node(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    let mut seen = Vec::new();
    for (path, taint) in each(spec, "taints", "spec") {
        let reasons = names::qualified_name(text(taint, "key"));
        causes.extend(invalid_all(&join(&path, "key"), &taint["key"], reasons));
        let reasons = names::label_value(text(taint, "value"));
        causes.extend(invalid_all(&join(&path, "value"), &taint["value"], reasons));
        if required(&mut causes, taint, "effect", &path) {
            one_of(&mut causes, taint, "effect", &path, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
        let identity = (text(taint, "key"), text(taint, "effect"));
        if seen.contains(&identity) {
            causes.push(duplicate(path, taint));
        }
        seen.push(identity);
    }
    let Some(old) = old else { return causes };
    let before = &old["spec"];
    if !text(before, "podCIDR").is_empty() && spec["podCIDR"] != before["podCIDR"] {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        causes.push(Cause::forbidden("spec.podCIDRs", why));
    }
    if !text(before, "providerID").is_empty() && spec["providerID"] != before["providerID"] {
        let why = "node updates may not change providerID except from \"\" to valid";
        causes.push(Cause::forbidden("spec.providerID", why));
    }
    causes
}

pub fn lease(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let field = "spec.leaseDurationSeconds";
        causes.push(Cause::invalid(field, &spec["leaseDurationSeconds"], "must be greater than 0"));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        let field = "spec.leaseTransitions";
        causes.push(Cause::invalid(field, &spec["leaseTransitions"], "must be greater than or equal to 0"));
    }
    causes
}

pub fn priority_class(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    causes.extend(priority_value(object));
    one_of(&mut causes, object, "preemptionPolicy", "", &["Never", "PreemptLowerPriority"]);
    if let Some(old) = old {
        for field in ["value", "preemptionPolicy"] {
            if object[field] != old[field] {
                causes.push(Cause::forbidden(field, "may not be changed in an update."));
            }
        }
    }
    causes
}

/// What only the system's own classes may be.
fn priority_value(object: &Value) -> Option<Cause> {
    const HIGHEST: i64 = 1_000_000_000;
    let (name, value) = (text(&object["metadata"], "name"), object["value"].as_i64().unwrap_or_default());
    if !name.starts_with("system-") {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        return (value > HIGHEST).then(|| Cause::forbidden("value", &why));
    }
    let known = match name {
        "system-node-critical" => 2_000_001_000,
        "system-cluster-critical" => 2_000_000_000,
        _ => return Some(reserved(&format!("{name} is not a known system priority class"))),
    };
    if value != known {
        return Some(reserved(&format!("value of {name} PriorityClass must be {known}")));
    }
    (object["globalDefault"] == true)
        .then(|| reserved(&format!("globalDefault of {name} PriorityClass must be false")))
}

fn reserved(why: &str) -> Cause {
    let why =
        format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
    Cause::forbidden("metadata.name", &why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_systems_priorities_are_the_systems_own() {
        let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
        let text = |name: &str, value: i64| {
            priority_class(&class(name, value), None).first().map(|cause| cause.message.clone())
        };
        assert_eq!(text("mine", 1_000_000_000), None);
        assert_eq!(
            text("mine", 1_000_000_001).unwrap(),
            "Forbidden: maximum allowed value of a user defined priority is 1000000000"
        );
        assert_eq!(text("system-node-critical", 2_000_001_000), None);
        assert!(
            text("system-mine", 1).unwrap().ends_with("system-mine is not a known system priority class")
        );
    }
}
