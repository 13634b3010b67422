//! The definitions themselves: defaults, validation, status (`apiextensions-apiserver/pkg/apis/apiextensions`).

use serde_json::{Value, json};

use super::{FINALIZER, converting, rules, text, validate};
use crate::api::names;
use crate::api::status::Cause;
use crate::control::apiserver::handlers::meta;
use crate::control::apiserver::registry::Strategy;
use crate::control::apiserver::registry::strategies::PLAIN;
use crate::control::apiserver::validation::metadata;

pub const STRATEGY: Strategy = Strategy { default, validate: check, prepare_create, prepare_update, ..PLAIN };

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec["names"].is_object()) else { return };
    let kind = text(&spec["names"], "kind").to_owned();
    if text(&spec["names"], "singular").is_empty() {
        spec["names"]["singular"] = json!(kind.to_lowercase());
    }
    if text(&spec["names"], "listKind").is_empty() && !kind.is_empty() {
        spec["names"]["listKind"] = json!(format!("{kind}List"));
    }
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    converting::default(&mut spec["conversion"]);
}

fn versions(object: &Value) -> &[Value] {
    object["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn storage(object: &Value) -> Vec<Value> {
    versions(object).iter().filter(|one| one["storage"] == true).map(|one| one["name"].clone()).collect()
}

fn prepare_create(object: &mut Value) {
    if !object["metadata"].is_object() {
        return;
    }
    object["status"] = json!({"conditions": [], "acceptedNames": {"kind": "", "plural": ""}, "storedVersions": storage(object)});
    object["metadata"]["generation"] = json!(1);
}

fn prepare_update(object: &mut Value, old: &Value) {
    if !object["metadata"].is_object() {
        return;
    }
    object["status"] = old["status"].clone();
    if let Some(stored) = object["status"]["storedVersions"].as_array().cloned() {
        let new = storage(object).into_iter().filter(|version| !stored.contains(version));
        object["status"]["storedVersions"] = stored.iter().cloned().chain(new).collect();
    }
    if object["spec"] != old["spec"] {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
    }
}

/// What a deletion adds: the finalizer that waits for the objects, and the condition that says so.
pub fn mark_deleted(object: &mut Value) {
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.contains(&json!(FINALIZER)) {
        finalizers.push(json!(FINALIZER));
        meta::set(object, "finalizers", finalizers.into());
    }
    set_condition(
        object,
        "Terminating",
        true,
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    );
}

/// Sets a condition; one that says the same already stays as it is.
pub fn set_condition(object: &mut Value, kind: &str, holds: bool, reason: &str, message: &str) {
    let status = if holds { "True" } else { "False" };
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let new = json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::now()});
    match conditions.iter_mut().find(|one| one["type"] == kind) {
        Some(own) if own["status"] == status && own["reason"] == reason && own["message"] == message => {}
        Some(own) => *own = new,
        None => conditions.push(new),
    }
    object["status"]["conditions"] = conditions.into();
}

fn check(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &object["spec"];
    let (group, plural) = (text(spec, "group"), text(&spec["names"], "plural"));
    let mut causes = metadata::any(object, old);
    if text(&object["metadata"], "name") != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], why));
    }
    match group {
        "" => causes.push(Cause::required("spec.group", "")),
        group if !group.contains('.') => {
            causes.push(Cause::invalid(
                "spec.group",
                &spec["group"],
                "should be a domain with at least one dot",
            ));
        }
        group => {
            for why in names::dns1123_subdomain(group) {
                causes.push(Cause::invalid("spec.group", &spec["group"], &why));
            }
        }
    }
    let guarded = group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io");
    if guarded && object["metadata"]["annotations"]["api-approved.kubernetes.io"].is_null() {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
        causes.push(Cause::required("metadata.annotations[api-approved.kubernetes.io]", why));
    }
    match text(spec, "scope") {
        "Cluster" | "Namespaced" => {}
        "" => causes.push(Cause::required("spec.scope", "")),
        _ => causes.push(Cause::unsupported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"])),
    }
    names_of(spec, &mut causes);
    check_versions(object, &mut causes);
    converting::check(&spec["conversion"], &mut causes);
    if let Some(old) = old {
        unchanged(object, old, &mut causes);
    }
    causes
}

fn names_of(spec: &Value, causes: &mut Vec<Cause>) {
    let own = &spec["names"];
    for (field, lower) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let path = format!("spec.names.{field}");
        match text(own, field) {
            "" => causes.push(Cause::required(path, "")),
            name => {
                let name = if lower { name.to_lowercase() } else { name.to_owned() };
                for why in names::dns1035_label(&name) {
                    causes.push(Cause::invalid(path.clone(), &own[field], &why));
                }
            }
        }
    }
    if !text(own, "kind").is_empty() && text(own, "kind") == text(own, "listKind") {
        causes.push(Cause::invalid(
            "spec.names.listKind",
            &own["listKind"],
            "kind and listKind may not be the same",
        ));
    }
}

fn check_versions(object: &Value, causes: &mut Vec<Cause>) {
    if storage(object).len() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &object["spec"]["versions"], why));
    }
    let mut seen = Vec::new();
    for (index, version) in versions(object).iter().enumerate() {
        let path = format!("spec.versions[{index}]");
        let name = text(version, "name");
        for why in names::dns1035_label(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &version["name"], &why));
        }
        metadata::unique(causes, &mut seen, &version["name"], format!("{path}.name"));
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("{path}.schema.openAPIV3Schema");
        match schema {
            Value::Object(_) => {
                if schema["type"] != "object" {
                    let own = if schema["type"].is_null() { json!("") } else { schema["type"].clone() };
                    let cause = match own == "" {
                        true => Cause::required(format!("{path}.type"), "must not be empty at the root"),
                        false => Cause::invalid(format!("{path}.type"), &own, "must be object at the root"),
                    };
                    causes.push(cause);
                }
                structural(schema, &path, true, causes);
            }
            _ => causes.push(Cause::required(path, "schemas are required")),
        }
    }
    for (index, stored) in object["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        if !versions(object).iter().any(|version| version["name"] == *stored) {
            let why = "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions";
            let why = why.replace("v1", stored.as_str().unwrap_or_default());
            causes.push(Cause::invalid(format!("status.storedVersions[{index}]"), stored, &why));
        }
    }
}

/// Every field has a type, patterns and rules can be compiled.
fn structural(schema: &Value, path: &str, root: bool, causes: &mut Vec<Cause>) {
    const DEEPEST: usize = 2000;
    if path.len() > DEEPEST * 16 {
        return;
    }
    let free = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    let kind = text(schema, "type");
    if !root && kind.is_empty() && !free {
        let what = if path.ends_with("items") { "array items" } else { "object fields" };
        causes.push(Cause::required(
            format!("{path}.type"),
            &format!("must not be empty for specified {what}"),
        ));
    }
    if kind == "array" && !schema["items"].is_object() {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| validate::compiled(pattern).is_none())
    {
        let why = format!("must be a valid regular expression, but isn't: error parsing regexp: `{pattern}`");
        causes.push(Cause::invalid(format!("{path}.pattern"), &schema["pattern"], &why));
    }
    for (index, rule) in schema["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
        if let Err(why) = rules::compiled(text(rule, "rule")) {
            causes.push(Cause::invalid(
                format!("{path}.x-kubernetes-validations[{index}].rule"),
                &rule["rule"],
                &why,
            ));
        }
    }
    if let Some(default) = schema.get("default") {
        let found = validate::check(schema, default);
        causes.extend(found.into_iter().map(|cause| Cause { field: format!("{path}.default"), ..cause }));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        if !(root && matches!(name.as_str(), "metadata" | "apiVersion" | "kind")) {
            structural(inner, &format!("{path}.properties[{name}]"), false, causes);
        }
    }
    for field in ["items", "additionalProperties"] {
        if schema[field].is_object() {
            structural(&schema[field], &format!("{path}.{field}"), false, causes);
        }
    }
}

/// What objects already rely on.
fn unchanged(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let established = old["status"]["conditions"].as_array().into_iter().flatten();
    let fixed = established.into_iter().any(|one| one["type"] == "Established" && one["status"] == "True");
    let mut same = vec![("/spec/group", true), ("/spec/names/plural", true)];
    same.extend([("/spec/scope", fixed), ("/spec/names/kind", fixed)]);
    for (pointer, fixed) in same {
        if fixed && object.pointer(pointer) != old.pointer(pointer) {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            let own = object.pointer(pointer).unwrap_or(&Value::Null);
            causes.push(Cause::invalid(field, own, "field is immutable"));
        }
    }
}
