//! Objects to bytes, once: what is stored is what is sent.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Map, Value};

use crate::api::status::Status;
use crate::control::store::{Draft, Entry};

/// Encodes an object with an empty place for the revision it will be committed at.
pub fn draft(object: &Value) -> Draft {
    let mut bytes = Vec::with_capacity(1024);
    let mut revision_at = 0;
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    bytes.push(b'{');
    for name in ["kind", "apiVersion"] {
        if let Some(value) = object.get(name) {
            field(&mut bytes, name, value);
        }
    }
    separate(&mut bytes);
    bytes.extend_from_slice(b"\"metadata\":{");
    for (name, value) in object.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
        if name != "resourceVersion" && !value.is_null() {
            field(&mut bytes, name, value);
        }
    }
    separate(&mut bytes);
    bytes.extend_from_slice(b"\"resourceVersion\":\"");
    revision_at += bytes.len();
    bytes.extend_from_slice(b"\"}");
    for (name, value) in object {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") && !value.is_null() {
            field(&mut bytes, name, value);
        }
    }
    bytes.push(b'}');
    Draft { bytes, revision_at }
}

/// The order of upstream's fields; what is not named comes after, by name.
const ORDER: &[&str] =
    &["kind", "apiVersion", "metadata", "spec", "status", "message", "reason", "details", "code"];

/// Encodes what is answered and never stored (a Status, a review) in the order upstream writes it.
pub fn answer(object: &Value) -> Vec<u8> {
    let Some(fields) = object.as_object() else { return object.to_string().into_bytes() };
    let mut bytes = vec![b'{'];
    for name in ORDER {
        fields.get(*name).into_iter().for_each(|value| field(&mut bytes, name, value));
    }
    for (name, value) in fields.iter().filter(|(name, _)| !ORDER.contains(&name.as_str())) {
        field(&mut bytes, name, value);
    }
    bytes.push(b'}');
    bytes
}

/// Indents JSON by two blanks a level, its fields in the order they are in.
pub fn indent(json: &[u8]) -> Vec<u8> {
    const DEEPEST: usize = 128;
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth.min(DEEPEST), b' ');
    };
    for (at, byte) in json.iter().copied().enumerate() {
        if quoted {
            out.push(byte);
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        let empty = |closing: u8| json.get(at + 1) == Some(&closing);
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                if !empty(byte + 2) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(json.get(at.wrapping_sub(1)), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                quoted = true;
                out.push(byte);
            }
            b' ' | b'\n' | b'\r' | b'\t' => {}
            other => out.push(other),
        }
    }
    out
}

/// Takes out nulls, which mean the same as nothing; a revision's data is somebody else's document.
pub fn prune(object: &mut Value) {
    let data = match &mut *object {
        Value::Object(fields) if fields.get("kind").is_some_and(|kind| kind == "ControllerRevision") => {
            fields.remove("data")
        }
        _ => None,
    };
    prune_all(object);
    if let Some(data) = data {
        object["data"] = data;
    }
}

fn prune_all(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(prune_all);
        }
        Value::Array(list) => list.iter_mut().for_each(prune_all),
        _ => {}
    }
}

fn field(bytes: &mut Vec<u8>, name: &str, value: &Value) {
    separate(bytes);
    // Writing JSON values into memory has no way to fail.
    let _ = serde_json::to_writer(&mut *bytes, name);
    bytes.push(b':');
    let _ = serde_json::to_writer(&mut *bytes, value);
}

fn separate(bytes: &mut Vec<u8>) {
    if bytes.last() != Some(&b'{') {
        bytes.push(b',');
    }
}

/// Reads a stored object.
pub fn object(entry: &Entry) -> Result<Value, Status> {
    serde_json::from_slice(&entry.value).map_err(Status::internal)
}

/// The items of a list, with commas between.
pub fn items<'a>(entries: impl ExactSizeIterator<Item = &'a Entry> + Clone) -> Vec<u8> {
    let size = entries.clone().map(|entry| entry.value.len() + 1).sum();
    let mut bytes = Vec::with_capacity(size);
    for entry in entries {
        if !bytes.is_empty() {
            bytes.push(b',');
        }
        bytes.extend_from_slice(&entry.value);
    }
    bytes
}

/// Compresses for the wire: the fastest level, as upstream chose after measuring.
pub fn gzip(pieces: &[&[u8]]) -> Bytes {
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut encoder = GzEncoder::new(Vec::with_capacity(size / 6), Compression::fast());
    for piece in pieces {
        // Writing into memory has no way to fail.
        let _ = encoder.write_all(piece);
    }
    encoder.finish().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_draft_is_the_object_with_a_place_for_its_revision() {
        let object = json!({"spec": {"a": 1}, "metadata": {"name": "x", "resourceVersion": "9"}, "kind": "K", "apiVersion": "v1"});
        let Draft { mut bytes, revision_at } = draft(&object);
        bytes.splice(revision_at..revision_at, *b"9");
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), object);
        assert!(bytes.starts_with(br#"{"kind":"K","apiVersion":"v1","metadata":{"#));
    }

    #[test]
    fn an_answer_is_written_in_upstreams_order_and_indented_as_it_is() {
        let status = json!({"code": 401, "reason": "Unauthorized", "message": "a\"{", "status": "Failure",
            "metadata": {}, "apiVersion": "v1", "kind": "Status", "x": [1, 2]});
        let bytes = answer(&status);
        assert!(bytes.starts_with(br#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"a\"{","reason""#));
        let text = String::from_utf8(indent(&bytes)).unwrap();
        assert!(
            text.starts_with("{\n  \"kind\": \"Status\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {},\n"),
            "{text}"
        );
        assert!(text.ends_with("\"x\": [\n    1,\n    2\n  ]\n}"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), status);
    }

    #[test]
    fn nulls_go_but_not_out_of_a_revisions_data() {
        let mut object = json!({"kind": "Pod", "spec": {"a": null, "b": [{"c": null}]}, "status": null});
        prune(&mut object);
        assert_eq!(object, json!({"kind": "Pod", "spec": {"b": [{}]}}));
        let mut revision = json!({"kind": "ControllerRevision", "data": {"a": null}});
        prune(&mut revision);
        assert_eq!(revision["data"], json!({"a": null}));
    }

    #[test]
    fn an_object_without_metadata_has_the_place_too() {
        let Draft { bytes, revision_at } = draft(&json!({}));
        assert_eq!(&bytes[..], br#"{"metadata":{"resourceVersion":""}}"#);
        assert_eq!(&bytes[revision_at..], br#""}}"#);
    }
}
