//! Request bodies in Kubernetes' protobuf: what kubectl's typed commands send (`create deployment`,
//! `certificate approve`, `auth can-i`).
//!
//! Stands for `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`, reading only: answers are JSON, which
//! every client that sends protobuf also takes. One generic reader is driven by a table of the API's fields
//! (`fields.txt`), so that no generated code is needed. A field the table does not know is skipped.
//!
//! A line of the table is `TYPE: NUMBER NAME CODE, …`. Codes: `s` text, `i` integer, `b` boolean, `f` float,
//! `y` bytes, `q` Quantity, `o` IntOrString, `T` Time, `M` MicroTime, `d` Duration, `r` raw JSON, `x` the
//! items of a wrapper, `>TYPE` a message; before it `*` a list, `{` a map from text; after it `!` that zero
//! means something. Name `^` is a message whose fields are its parent's.

mod read;
mod scalar;

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use read::{Content, Fields};

/// The content type.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper nesting than any kind has.
const DEEPEST: usize = 64;

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    #[error("unexpected EOF")]
    Short,
    #[error("proto: illegal wireType {0}")]
    WireType(u64),
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: invalid UTF-8")]
    Text,
    #[error("proto: wrong wireType for field {0}")]
    Mismatch(String),
    #[error("proto: nested too deep")]
    Deep,
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Unknown { kind: String, version: String },
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads a body into the object its sender meant, `apiVersion` and `kind` included.
pub fn decode(body: &[u8]) -> Result<Value, WireError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(WireError::Magic)?;
    let (mut version, mut kind, mut raw, mut media) = (String::new(), String::new(), &b""[..], String::new());
    for field in Fields::of(envelope) {
        match field? {
            (1, Content::Bytes(inner)) => {
                for field in Fields::of(inner) {
                    match field? {
                        (1, Content::Bytes(text)) => version = read::text(text)?,
                        (2, Content::Bytes(text)) => kind = read::text(text)?,
                        _ => {}
                    }
                }
            }
            (2, Content::Bytes(bytes)) => raw = bytes,
            (4, Content::Bytes(text)) => media = read::text(text)?,
            _ => {}
        }
    }
    let mut object = match media.as_str() {
        "application/json" => serde_json::from_slice(raw)?,
        _ => {
            let name = type_name(&version, &kind);
            let unknown = || WireError::Unknown { kind: kind.clone(), version: version.clone() };
            let of = table().get(name.as_str()).ok_or_else(unknown)?;
            let mut object = Map::new();
            message(&mut object, of, raw, 0)?;
            Value::Object(object)
        }
    };
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), json!(version));
        fields.insert("kind".into(), json!(kind));
    }
    Ok(object)
}

/// A kind's name in the table: `apps/v1.Deployment`.
fn type_name(version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta/v1.DeleteOptions".to_owned();
    }
    match version.split_once('/') {
        None => format!("core/{version}.{kind}"),
        Some((group, version)) => format!("{}/{version}.{kind}", group.split('.').next().unwrap_or_default()),
    }
}

/// One field of a type.
struct Field {
    name: &'static str,
    shape: Shape,
    code: &'static str,
    /// Zero is not the same as nothing.
    zero_counts: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    One,
    List,
    Map,
}

type Type = HashMap<u64, Field>;

/// The table, read once.
fn table() -> &'static HashMap<&'static str, Type> {
    static TABLE: OnceLock<HashMap<&str, Type>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let lines = include_str!("fields.txt").lines().filter_map(|line| line.split_once(':'));
        lines.map(|(name, fields)| (name, fields.split(',').filter_map(field).collect())).collect()
    })
}

fn field(text: &'static str) -> Option<(u64, Field)> {
    let mut words = text.split_whitespace();
    let (number, name, code) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (code, zero_counts) = code.strip_suffix('!').map_or((code, false), |code| (code, true));
    let (shape, code) = match (code.strip_prefix('*'), code.strip_prefix('{')) {
        (Some(code), _) => (Shape::List, code),
        (_, Some(code)) => (Shape::Map, code),
        _ => (Shape::One, code),
    };
    Some((number, Field { name, shape, code, zero_counts }))
}

/// Reads a message's fields into `out`.
fn message(
    out: &mut Map<String, Value>,
    of: &'static Type,
    bytes: &[u8],
    depth: usize,
) -> Result<(), WireError> {
    if depth > DEEPEST {
        return Err(WireError::Deep);
    }
    for found in Fields::of(bytes) {
        let (number, content) = found?;
        let Some(field) = of.get(&number) else { continue };
        if field.name == "^" {
            let (Content::Bytes(bytes), Some(inner)) =
                (content, field.code.get(1..).and_then(|name| table().get(name)))
            else {
                return Err(WireError::Mismatch(number.to_string()));
            };
            message(out, inner, bytes, depth + 1)?;
            continue;
        }
        match field.shape {
            Shape::One => {
                if let Some(value) =
                    value(field, content, depth)?.filter(|value| field.zero_counts || !is_zero(value))
                {
                    out.insert(field.name.into(), value);
                }
            }
            Shape::List => {
                let list = out.entry(field.name).or_insert_with(|| json!([]));
                if let (Some(list), Some(value)) = (list.as_array_mut(), value(field, content, depth)?) {
                    list.push(value);
                }
            }
            Shape::Map => {
                let (key, value) = entry(field, content, depth)?;
                let map = out.entry(field.name).or_insert_with(|| json!({}));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

/// A map's entry: key 1, value 2.
fn entry(field: &Field, content: Content<'_>, depth: usize) -> Result<(String, Value), WireError> {
    let Content::Bytes(bytes) = content else { return Err(WireError::Mismatch(field.name.to_owned())) };
    let (mut key, mut found) = (String::new(), None);
    for part in Fields::of(bytes) {
        match part? {
            (1, Content::Bytes(text)) => key = read::text(text)?,
            (2, content) => found = value(field, content, depth)?,
            _ => {}
        }
    }
    let empty = || if field.code == "s" || field.code == "y" { json!("") } else { json!({}) };
    Ok((key, found.unwrap_or_else(empty)))
}

/// One value; `None` where the wire says nothing (a zero time).
fn value(field: &Field, content: Content<'_>, depth: usize) -> Result<Option<Value>, WireError> {
    match (field.code.strip_prefix('>'), content) {
        (Some(name), Content::Bytes(bytes)) => {
            let mut inner = Map::new();
            if let Some(of) = table().get(name) {
                message(&mut inner, of, bytes, depth + 1)?;
            }
            Ok(Some(Value::Object(inner)))
        }
        (Some(_), _) => Err(WireError::Mismatch(field.name.to_owned())),
        (None, content) => scalar::read(field.name, field.code, content),
    }
}

/// What Go's `omitempty` leaves out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
