//! Volumes, claims and classes (`pkg/apis/core/validation`, `pkg/apis/storage/validation`).

use serde_json::Value;

use super::{each, immutable, invalid_all, join, metadata, one_of, required, text};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::api::status::Cause;

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// Fields of a volume's spec that are not where its bytes are.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

fn access_modes(causes: &mut Vec<Cause>, spec: &Value, why: &str) {
    if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.accessModes", why));
    }
    for (path, mode) in each(spec, "accessModes", "spec") {
        if !mode.as_str().is_some_and(|mode| MODES.contains(&mode)) {
            causes.push(Cause::unsupported(path, mode, &MODES));
        }
    }
}

fn source(spec: &Value) -> Vec<(&String, &Value)> {
    let fields = spec.as_object().into_iter().flatten();
    fields.filter(|(name, value)| value.is_object() && !NO_SOURCE.contains(&name.as_str())).collect()
}

pub fn volume(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    access_modes(&mut causes, spec, "");
    match spec["capacity"].as_object().filter(|capacity| !capacity.is_empty()) {
        None => causes.push(Cause::required("spec.capacity", "")),
        Some(capacity) => {
            if capacity.len() > 1 || !capacity.contains_key("storage") {
                causes.push(Cause::unsupported("spec.capacity", &spec["capacity"], &["storage"]));
            }
            positive(&mut causes, &capacity["storage"], "spec.capacity[storage]");
        }
    }
    one_of(&mut causes, spec, "persistentVolumeReclaimPolicy", "spec", &POLICIES);
    one_of(&mut causes, spec, "volumeMode", "spec", &["Block", "Filesystem"]);
    let sources = source(spec);
    if sources.is_empty() {
        causes.push(Cause::required("spec", "must specify a volume type"));
    }
    for (name, _) in sources.iter().skip(1) {
        causes.push(Cause::forbidden(join("spec", name), "may not specify more than 1 volume type"));
    }
    if spec["local"].is_object() && spec["nodeAffinity"]["required"].is_null() {
        causes.push(Cause::required("spec.nodeAffinity", "Local volume requires node affinity"));
    }
    if text(&spec["hostPath"], "path").split('/').any(|part| part == "..") {
        let why = "must not contain '..'";
        causes.push(Cause::invalid("spec.hostPath.path", &spec["hostPath"]["path"], why));
    }
    if let Some(old) = old {
        if sources != source(&old["spec"]) {
            let why = "spec.persistentvolumesource is immutable after creation";
            causes.push(Cause::forbidden("spec.persistentvolumesource", why));
        }
        immutable(&mut causes, spec, &old["spec"], "volumeMode", "spec");
    }
    causes
}

fn positive(causes: &mut Vec<Cause>, amount: &Value, path: &str) {
    let bad = |text: &str| Quantity::parse(text).is_ok_and(|own| own.is_zero() || own.is_negative());
    if amount.as_str().is_some_and(bad) {
        causes.push(Cause::invalid(path, amount, "must be greater than zero"));
    }
}

pub fn claim(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    access_modes(&mut causes, spec, "at least 1 access mode is required");
    metadata::selector(&mut causes, &spec["selector"], "spec.selector");
    let asks = &spec["resources"]["requests"]["storage"];
    if asks.is_null() {
        causes.push(Cause::required("spec.resources[storage]", ""));
    }
    positive(&mut causes, asks, "spec.resources[storage]");
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        let reasons = names::dns1123_subdomain(class);
        causes.extend(invalid_all("spec.storageClassName", &spec["storageClassName"], reasons));
    }
    one_of(&mut causes, spec, "volumeMode", "spec", &["Block", "Filesystem"]);
    if let Some(old) = old {
        claim_change(&mut causes, object, old);
    }
    causes
}

/// A claim is what it is; it may be bound once, get a class where it had none, and grow once bound.
fn claim_change(causes: &mut Vec<Cause>, object: &Value, old: &Value) {
    let (new, before) = (&object["spec"], &old["spec"]);
    let bound = old["status"]["phase"] == "Bound";
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        let asked = spec.pointer_mut("/resources/requests").and_then(Value::as_object_mut);
        if let Some(asked) = asked.filter(|_| bound) {
            asked.remove("storage");
        }
        let mut fields = spec.as_object().cloned().unwrap_or_default();
        fields.retain(|name, value| match name.as_str() {
            "volumeName" => !text(before, "volumeName").is_empty(),
            "storageClassName" => !before["storageClassName"].is_null(),
            "volumeAttributesClassName" => !bound,
            _ => !value.is_null(),
        });
        fields
    };
    if fixed(new) != fixed(before) {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        causes.push(Cause::forbidden("spec", why));
    }
    let amount = |spec: &Value| {
        spec["resources"]["requests"]["storage"].as_str().and_then(|text| Quantity::parse(text).ok())
    };
    if bound && amount(&object["spec"]) < amount(before) {
        let why = "field can not be less than status.capacity";
        causes.push(Cause::forbidden("spec.resources.requests.storage", why));
    }
}

pub fn class(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    if required(&mut causes, object, "provisioner", "") {
        let reasons = names::qualified_name(&text(object, "provisioner").to_lowercase());
        causes.extend(invalid_all("provisioner", &object["provisioner"], reasons));
    }
    one_of(&mut causes, object, "reclaimPolicy", "", &["Delete", "Retain"]);
    one_of(&mut causes, object, "volumeBindingMode", "", &["Immediate", "WaitForFirstConsumer"]);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy"] {
            if object[field] != old[field] {
                causes.push(Cause::forbidden(field, &format!("updates to {field} are forbidden.")));
            }
        }
        immutable(&mut causes, object, old, "volumeBindingMode", "");
    }
    causes
}

pub fn attributes_class(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    required(&mut causes, object, "driverName", "");
    if let Some(old) = old {
        immutable(&mut causes, object, old, "driverName", "");
        immutable(&mut causes, object, old, "parameters", "");
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn say(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(|one| format!("{}: {}", one.field, one.message)).collect()
    }

    #[test]
    fn a_claim_asks_for_something_and_then_stays_as_it_is() {
        let object = |spec: Value, phase: &str| json!({"metadata": {"name": "c", "namespace": "a"}, "spec": spec, "status": {"phase": phase}});
        let spec = |size: &str, volume: &str| {
            json!({"accessModes": ["ReadWriteOnce"], "volumeName": volume,
            "resources": {"requests": {"storage": size}}})
        };
        assert_eq!(
            say(&claim(&object(json!({}), "Pending"), None)),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ]
        );
        let (pending, bound) = (object(spec("1Gi", ""), "Pending"), object(spec("1Gi", "pv"), "Bound"));
        assert_eq!(say(&claim(&bound, Some(&pending))), [""; 0]);
        assert!(
            say(&claim(&object(spec("2Gi", ""), "Pending"), Some(&pending)))[0]
                .starts_with("spec: Forbidden: spec is immutable")
        );
        assert_eq!(say(&claim(&object(spec("2Gi", "pv"), "Bound"), Some(&bound))), [""; 0]);
        assert_eq!(
            say(&claim(&object(spec("1Mi", "pv"), "Bound"), Some(&bound))),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
    }
}
