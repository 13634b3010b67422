//! Reading objects straight from the store, as upstream's checks read their informers.

use serde_json::Value;

use super::registry;
use crate::control::store::Store;

/// An object by its resource and name; a namespaced one with its namespace.
pub fn object(store: &Store, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
    let row = registry::by_name(group, plural)?;
    let entry = store.get(&row.bucket, &row.key(namespace, name))?;
    serde_json::from_slice(&entry.value).ok()
}

/// A string at a JSON pointer, empty when there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// When the object was deleted (its grace period may still run), in seconds since 1970.
pub fn deleted_at(object: &Value) -> Option<i64> {
    let time: jiff::Timestamp = text(object, "/metadata/deletionTimestamp").parse().ok()?;
    Some(time.as_second())
}
