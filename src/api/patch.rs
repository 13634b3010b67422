//! The three patches a server applies to a whole object: JSON, merge, and strategic merge.
//!
//! Stands for `k8s.io/apiserver`'s patch handler and `k8s.io/apimachinery/pkg/util/strategicpatch`, with
//! their error texts. Server-side apply is not a patch of this sort and lives elsewhere.

use serde_json::{Map, Value};

use super::merge_keys::Type;
use super::status::{Result, Status};

mod lists;

/// Upstream's limit for the operations of one JSON patch.
const MOST_OPERATIONS: usize = 10_000;

/// Upstream's limit for what the copies of one JSON patch add: as much as a body may have.
const MOST_COPIED: usize = 3 * 1024 * 1024;

/// `application/json-patch+json`.
pub fn json(mut object: Value, patch: &[u8]) -> Result<Value> {
    let operations: Vec<Value> = decode(patch)?;
    if operations.len() > MOST_OPERATIONS {
        let sent = operations.len();
        return Err(Status::new(
            413,
            "RequestEntityTooLarge",
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {sent}"
            ),
        ));
    }
    let json_patch::Patch(operations) = decode(patch)?;
    // Each copy can double the object: what they add together is bounded, as upstream bounds it.
    let mut copied = 0;
    for operation in &operations {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, size);
            if copied > MOST_COPIED {
                return Err(unprocessable());
            }
        }
        if says_nothing_is_there(&object, operation) {
            continue;
        }
        let one = std::slice::from_ref(operation);
        json_patch::patch(&mut object, one).map_err(|_| unprocessable())?;
    }
    Ok(object)
}

/// Whether an operation tests for null what is not there, in something that is: upstream's library takes that
/// for true, and kube-rs puts its finalizers on so.
fn says_nothing_is_there(object: &Value, operation: &json_patch::PatchOperation) -> bool {
    let json_patch::PatchOperation::Test(test) = operation else { return false };
    let path = test.path.as_str();
    let within = path.rsplit_once('/').and_then(|(parent, _)| object.pointer(parent));
    test.value.is_null() && within.is_some_and(Value::is_object) && object.pointer(path).is_none()
}

/// About how long a value is as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|value| size(value) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value) + 4).sum::<usize>() + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
    }
}

/// `application/merge-patch+json` (RFC 7386).
pub fn merge(mut object: Value, patch: &[u8]) -> Result<Value> {
    let patch: Map<String, Value> = decode(patch)?;
    json_patch::merge(&mut object, &Value::Object(patch));
    Ok(object)
}

/// `application/strategic-merge-patch+json`.
pub fn strategic(object: Value, patch: &[u8], of: &'static Type) -> Result<Value> {
    let patch: Map<String, Value> = decode(patch)?;
    let Value::Object(object) = object else { return Err(Status::bad_request("invalid JSON document")) };
    Ok(Value::Object(merge_map(object, patch, of)?))
}

fn decode<T: serde::de::DeserializeOwned>(patch: &[u8]) -> Result<T> {
    serde_json::from_slice(patch)
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))
}

/// What a JSON patch that does not apply answers: upstream keeps the reason to itself.
fn unprocessable() -> Status {
    Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
        .with_details(serde_json::json!({}))
}

fn bad(text: &str) -> Status {
    Status::bad_request(text)
}

/// An error upstream has no code for.
fn internal(text: String) -> Status {
    Status::new(500, "", text)
}

/// Merges a patch into a map, directives included.
fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    of: &'static Type,
) -> Result<Map<String, Value>> {
    if let Some(directive) = patch.remove("$patch") {
        match directive.as_str() {
            Some("replace") => return Ok(patch),
            Some("delete") => return Ok(Map::new()),
            Some("merge") => {}
            _ => {
                let (directive, map) = (go_text(&directive), go_text(&Value::Object(patch)));
                return Err(internal(format!("unknown patch type: {directive} in map: {map}")));
            }
        }
    }
    retain_keys(&mut original, &mut patch)?;
    lists::set_element_order(&mut original, &mut patch, of)?;
    for (key, change) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            lists::delete_scalars(&mut original, field, &change)?;
            continue;
        }
        merge_field(&mut original, key, change, of)?;
    }
    Ok(original)
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: String,
    change: Value,
    of: &'static Type,
) -> Result<()> {
    use super::merge_keys::Merge;
    if change.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let (merge, inner) = of.field(&key);
    let merged = match (original.remove(&key), change) {
        (None, change) => fresh(change)?,
        (Some(Value::Object(old)), Value::Object(new)) if merge != Merge::Replace => {
            Value::Object(merge_map(old, new, inner)?)
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            Value::Array(lists::merge_list(old, new, merge, inner)?)
        }
        (Some(_), change) => fresh(change)?,
    };
    original.insert(key, merged);
    Ok(())
}

/// A value that lands where nothing was: nulls and directives mean nothing there.
fn fresh(value: Value) -> Result<Value> {
    Ok(match value {
        Value::Object(map) => {
            let mut clean = Map::new();
            for (key, value) in map {
                if value.is_null() || key.starts_with("$setElementOrder/") || key == "$retainKeys" {
                    continue;
                }
                if key == "$patch" || key.starts_with("$deleteFromPrimitiveList/") {
                    continue;
                }
                clean.insert(key, fresh(value)?);
            }
            Value::Object(clean)
        }
        Value::Array(items) => {
            let gone = |item: &Value| item["$patch"] == "delete";
            let items = items.into_iter().filter(|item| !gone(item));
            Value::Array(items.map(fresh).collect::<Result<_>>()?)
        }
        scalar => scalar,
    })
}

/// `$retainKeys`: what the list does not name is dropped.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let Some(keep) = patch.remove("$retainKeys") else { return Ok(()) };
    let keep: Option<Vec<&str>> = keep.as_array().map(|keys| keys.iter().filter_map(Value::as_str).collect());
    let Some(keep) = keep else { return Err(bad("invalid patch format of retainKeys")) };
    let bare = |key: &str| key.starts_with('$') || keep.contains(&key);
    if patch.iter().any(|(key, value)| !value.is_null() && !bare(key)) {
        return Err(unprocessable());
    }
    original.retain(|key, _| keep.contains(&key.as_str()));
    Ok(())
}

/// A value as Go's `%v` prints it, which upstream's texts contain.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests;
