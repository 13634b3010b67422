//! The fields of `metadata` that are the system's (`rest.BeforeCreate`, `rest.BeforeUpdate`).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::registry::Resource;

/// Upstream cuts a generateName's base so that the five random characters still fit.
const GENERATED_BASE: usize = 63 - 5;
/// No vowels and no look-alikes, so that nothing is spelled by accident.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Now, as `metav1.Time` prints it.
pub fn now() -> String {
    time(Timestamp::now())
}

pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A text field of `metadata`; empty when absent.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Whether a list in `metadata` (finalizers) has anything in it.
pub fn any(object: &Value, field: &str) -> bool {
    object["metadata"][field].as_array().is_some_and(|list| !list.is_empty())
}

pub fn deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Sets or, with null, removes a field of `metadata`.
pub fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        match value {
            Value::Null => drop(metadata.remove(field)),
            value => drop(metadata.insert(field.to_owned(), value)),
        }
    }
}

/// Puts the object into the request's namespace, or refuses another.
pub fn place(row: &Resource, object: &mut Value, namespace: &str) -> Result<()> {
    if !row.namespaced {
        set(object, "namespace", Value::Null);
        return Ok(());
    }
    match text(object, "namespace") {
        "" => set(object, "namespace", json!(namespace)),
        own if own == namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Makes `metadata` that of a new object, and names it.
pub fn fill_new(row: &Resource, object: &mut Value) -> Result<()> {
    if !text(object, "resourceVersion").is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"] {
        set(object, field, Value::Null);
    }
    if text(object, "name").is_empty() {
        if text(object, "generateName").is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Status::invalid(row.group, row.kind, "", &[cause]));
        }
        generate_name(object);
    }
    set(object, "uid", json!(uuid::Uuid::new_v4().to_string()));
    set(object, "creationTimestamp", json!(now()));
    Ok(())
}

/// Draws a new random name.
pub fn generate_name(object: &mut Value) {
    let base: String = text(object, "generateName").chars().take(GENERATED_BASE).collect();
    let random = uuid::Uuid::new_v4();
    let tail: String = random.as_bytes()[8..].iter().skip(1).take(5).map(|byte| letter(*byte)).collect();
    set(object, "name", json!(format!("{base}{tail}")));
}

fn letter(byte: u8) -> char {
    ALPHABET[byte as usize % ALPHABET.len()] as char
}

/// Carries what no client may change from the old object to the new.
pub fn carry_over(object: &mut Value, old: &Value) {
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        set(object, field, old["metadata"][field].clone());
    }
    set(object, "selfLink", Value::Null);
    // generateName tells where a name came from; it is kept as long as the client does not send another.
    set(object, "resourceVersion", old["metadata"]["resourceVersion"].clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_keep_their_base_and_differ() {
        let mut object = json!({"metadata": {"generateName": "web-"}});
        generate_name(&mut object);
        let first = text(&object, "name").to_owned();
        generate_name(&mut object);
        assert!(first.starts_with("web-") && first.len() == 9, "{first}");
        assert_ne!(first, text(&object, "name"));
    }
}
