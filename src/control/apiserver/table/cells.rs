//! Cells that several kinds share: names, ages, counts, label texts.

use jiff::Timestamp;
use serde_json::Value;

use crate::api::age;
use crate::api::selector::LabelSelector;
use crate::control::apiserver::registry::Column;

/// A column of text.
pub const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

/// A column of whole numbers.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description, priority: 0 }
}

/// A column that only `-o wide` shows.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some \
        resources may allow a client to request the generation of an appropriate name automatically. Name is \
        primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: \
        https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. \
    It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this \
    value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. \
    More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
pub const AGE: Column = text("Age", CREATED);
pub const CREATED_AT: Column =
    Column { name: "Created At", kind: "date", format: "", description: CREATED, priority: 0 };

pub fn name(object: &Value) -> Value {
    string(object, "/metadata/name").into()
}

pub fn age(object: &Value, now: Timestamp) -> Value {
    since(object, "/metadata/creationTimestamp", now).into()
}

/// How long ago the time at a pointer was.
pub fn since(object: &Value, pointer: &str, now: Timestamp) -> String {
    age::since(object.pointer(pointer).and_then(Value::as_str), now)
}

/// The text at a pointer; empty where there is none.
pub fn string<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The text at a pointer, or `<none>`.
pub fn or_none(object: &Value, pointer: &str) -> Value {
    none_if_empty(string(object, pointer))
}

pub fn none_if_empty(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

/// The number at a pointer; 0 where there is none, as Go's zero value prints.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a pointer.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many entries the map or list at a pointer has.
pub fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(object: &Value, pointer: &str) -> Value {
    let pairs = object.pointer(pointer).and_then(Value::as_object);
    let pairs = pairs.into_iter().flatten();
    let texts: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    none_if_empty(&texts.join(","))
}

/// A `LabelSelector` object as one line.
pub fn selector(object: &Value, pointer: &str) -> Value {
    match LabelSelector::from_object(object.pointer(pointer)) {
        Ok(selector) => none_if_empty(&selector.to_string()),
        Err(_) => "<error>".into(),
    }
}

/// The first texts of a list, and how many more there are.
pub fn at_most(texts: &[String], most: usize, nothing: &str) -> Value {
    match texts.len() {
        0 => nothing.into(),
        all if all > most => format!("{} + {} more...", texts[..most].join(","), all - most).into(),
        _ => texts.join(",").into(),
    }
}
