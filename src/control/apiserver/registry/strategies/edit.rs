//! Small edits of JSON objects that never panic, whatever shape a client sent.

use serde_json::{Map, Value, json};

/// The map in a field, made if it is not there; `None` where something else is.
pub fn map<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let inner = value.as_object_mut()?.entry(field).or_insert(Value::Null);
    if inner.is_null() {
        *inner = Value::Object(Map::new());
    }
    Some(inner).filter(|inner| inner.is_object())
}

/// The map in a field, if there is one.
pub fn existing<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    value.get_mut(field).filter(|inner| inner.is_object())
}

/// The items of a list in a field.
pub fn items<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets a field that is absent, null or empty text.
pub fn default(value: &mut Value, field: &str, to: impl Into<Value>) {
    if is_unset(&value[field]) {
        set(value, field, to.into());
    }
}

/// Sets a field that is unset or 0, for numbers where Go has no pointer.
pub fn default_zero(value: &mut Value, field: &str, to: impl Into<Value>) {
    if is_unset(&value[field]) || value[field] == 0 {
        set(value, field, to.into());
    }
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || value == ""
}

pub fn set(value: &mut Value, field: &str, to: Value) {
    if let Some(map) = value.as_object_mut() {
        map.insert(field.to_owned(), to);
    }
}

/// Copies a field, or removes it where the source has none.
pub fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => drop(map.insert(field.to_owned(), value.clone())),
        None => drop(map.remove(field)),
    }
}

pub fn remove(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut() {
        map.remove(field);
    }
}

/// A new object whose status is the system's to write: empty, generation 1.
pub fn new_with_generation(object: &mut Value) {
    set(object, "status", json!({}));
    set_generation(object, 1);
}

/// The status stays; the generation counts changes of `spec`.
pub fn keep_status_count_spec(object: &mut Value, old: &Value) {
    copy(object, old, "status");
    count_changes(object, old, object["spec"] != old["spec"]);
}

pub fn count_changes(object: &mut Value, old: &Value, changed: bool) {
    let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
    set_generation(object, generation + i64::from(changed));
}

pub fn set_generation(object: &mut Value, generation: i64) {
    if let Some(metadata) = map(object, "metadata") {
        set(metadata, "generation", json!(generation));
    }
}
