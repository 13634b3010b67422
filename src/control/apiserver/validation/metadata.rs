//! `metadata`: names, labels, annotations, owners, and what of it never changes.

use serde_json::{Value, json};

use super::{IMMUTABLE, duplicate, each, immutable, invalid_all, text, too_long};
use crate::api::names;
use crate::api::status::Cause;

/// Which texts a kind takes as a name.
pub type NameRule = fn(&str) -> Vec<String>;

const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

/// A kind with nothing to check but its metadata.
pub fn any(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    check(object, old, names::dns1123_subdomain)
}

pub fn check(object: &Value, old: Option<&Value>, rule: NameRule) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    match old {
        None => {
            let prefix = text(metadata, "generateName");
            if !prefix.is_empty() {
                // A name is made of it by adding characters that end well.
                let probe = format!("{}x", prefix.trim_end_matches('-'));
                causes.extend(invalid_all("metadata.generateName", &metadata["generateName"], rule(&probe)));
            }
            causes.extend(invalid_all("metadata.name", &metadata["name"], rule(text(metadata, "name"))));
            if let Some(namespace) = metadata["namespace"].as_str() {
                let reasons = names::dns1123_label(namespace);
                causes.extend(invalid_all("metadata.namespace", &metadata["namespace"], reasons));
            }
        }
        Some(old) => {
            for field in ["name", "namespace", "uid", "creationTimestamp"] {
                immutable(&mut causes, metadata, &old["metadata"], field, "metadata");
            }
        }
    }
    labels(&mut causes, &metadata["labels"], "metadata.labels");
    annotations(&mut causes, &metadata["annotations"], "metadata.annotations");
    owners(&mut causes, metadata);
    if let Some(old) = old.filter(|old| !old["metadata"]["deletionTimestamp"].is_null()) {
        causes.extend(new_finalizers(metadata, &old["metadata"]));
    }
    for (path, finalizer) in each(metadata, "finalizers", "metadata") {
        let reasons = names::qualified_name(finalizer.as_str().unwrap_or_default());
        causes.extend(invalid_all(&path, finalizer, reasons));
    }
    causes
}

/// What is being deleted must not be held back by somebody new.
fn new_finalizers(metadata: &Value, old: &Value) -> Option<Cause> {
    let list = |metadata: &Value| metadata["finalizers"].as_array().cloned().unwrap_or_default();
    let held = list(old);
    let new: Vec<String> =
        list(metadata).iter().filter(|one| !held.contains(one)).map(ToString::to_string).collect();
    let why = "no new finalizers can be added if the object is being deleted, found new finalizers";
    (!new.is_empty())
        .then(|| Cause::forbidden("metadata.finalizers", &format!("{why} []string{{{}}}", new.join(", "))))
}

/// A map of labels: keys, then values.
pub fn labels(causes: &mut Vec<Cause>, labels: &Value, path: &str) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        causes.extend(invalid_all(path, &json!(key), names::qualified_name(key)));
        causes.extend(invalid_all(path, value, names::label_value(value.as_str().unwrap_or_default())));
    }
}

pub fn annotations(causes: &mut Vec<Cause>, annotations: &Value, path: &str) {
    let mut bytes = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        // The name part of an annotation's key may have any case, its prefix too.
        causes.extend(invalid_all(path, &json!(key), names::qualified_name(&key.to_lowercase())));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > MOST_ANNOTATION_BYTES {
        causes.push(too_long(path.to_owned(), MOST_ANNOTATION_BYTES));
    }
}

fn owners(causes: &mut Vec<Cause>, metadata: &Value) {
    let mut controllers = 0;
    for (_, owner) in each(metadata, "ownerReferences", "metadata") {
        let rules = [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ];
        for (field, why) in rules {
            if text(owner, field).is_empty() {
                causes.push(Cause::invalid(format!("metadata.ownerReferences.{field}"), &json!(""), why));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &metadata["ownerReferences"], why));
    }
}

/// A `LabelSelector` object.
pub fn selector(causes: &mut Vec<Cause>, selector: &Value, path: &str) {
    labels(causes, &selector["matchLabels"], &format!("{path}.matchLabels"));
    for (path, one) in each(selector, "matchExpressions", path) {
        let values = one["values"].as_array().map_or(0, Vec::len);
        match text(one, "operator") {
            "In" | "NotIn" if values == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{path}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                causes.push(Cause::invalid(format!("{path}.operator"), &one["operator"], why));
            }
        }
        let reasons = names::qualified_name(text(one, "key"));
        causes.extend(invalid_all(&format!("{path}.key"), &one["key"], reasons));
    }
}

/// Names that must not repeat in a list.
pub fn unique(causes: &mut Vec<Cause>, seen: &mut Vec<String>, name: &Value, path: String) {
    let Some(name_text) = name.as_str().filter(|name| !name.is_empty()) else { return };
    if seen.iter().any(|own| own == name_text) {
        causes.push(duplicate(path, name));
    } else {
        seen.push(name_text.to_owned());
    }
}

/// The text for a field that may never change.
pub fn changed(field: &str, value: &Value) -> Cause {
    Cause::invalid(field, value, IMMUTABLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_deleted_is_not_held_back_by_somebody_new() {
        let object = |finalizers: &[&str], deleted: Value| json!({"metadata": {"name": "a", "finalizers": finalizers, "deletionTimestamp": deleted}});
        let now = json!("2026-01-01T00:00:00Z");
        let old = object(&["x/y"], now.clone());
        let causes = any(&object(&["x/y", "z/z"], now.clone()), Some(&old));
        assert_eq!(
            causes[0].message,
            r#"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"z/z"}"#
        );
        assert!(any(&object(&[], now), Some(&old)).is_empty());
        assert!(any(&object(&["x/y", "z/z"], Value::Null), Some(&object(&["x/y"], Value::Null))).is_empty());
    }
}
