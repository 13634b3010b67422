//! From a request's body to an object of its kind, with upstream's words for what is wrong with it.

use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::Value;

use super::options::FieldValidation;
use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::{self, Resource};
use crate::control::apiserver::wire;

/// Upstream's limit on a request's body, and its text.
pub const LIMIT: usize = 3 * 1024 * 1024;

pub fn too_large() -> Status {
    Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {LIMIT}"))
}

/// An object read from a request, and what is to be said about it.
pub struct Decoded {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// The media type a body is said to be of, without its parameters.
fn media(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

fn is_yaml(media: &str) -> bool {
    matches!(media, "application/yaml" | "text/yaml")
}

/// Reads JSON or YAML.
pub fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Value> {
    match media(headers) {
        "" | "application/json" => json(body),
        wire::MEDIA => wire::decode(body).map_err(|error| Status::bad_request(error.to_string())),
        kind if is_yaml(kind) => yaml(body),
        other => Err(Status::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf (got {other:?})"
            ),
        )),
    }
}

/// Reads YAML, of which JSON is a part.
pub fn yaml(body: &Bytes) -> Result<Value> {
    let refused = |why: String| Status::bad_request(format!("error converting YAML to JSON: yaml: {why}"));
    // The parser's time grows with the square of the nesting.
    if nests_deeply(body) {
        return Err(refused("exceeded max depth of 1000".into()));
    }
    serde_yaml_ng::from_slice(body).map_err(|error| refused(error.to_string()))
}

/// Whether flow collections, or block ones begun on one line (`- - - a`), lie deeper than anybody writes.
fn nests_deeply(yaml: &[u8]) -> bool {
    const DEEPEST: usize = 1000;
    let (mut open, mut begun) = (0usize, 0usize);
    yaml.windows(2).any(|pair| {
        match pair[0] {
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            b'\n' => begun = 0,
            b'-' | b'?' | b':' if matches!(pair[1], b' ' | b'\t') => begun += 1,
            _ => {}
        }
        open > DEEPEST || begun > DEEPEST
    })
}

fn json(body: &Bytes) -> Result<Value> {
    serde_json::from_slice(body)
        .map_err(|error| Status::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
}

/// Reads a value as the row's kind: names checked, types checked, unknown fields treated as asked,
/// defaults filled in.
pub fn decode(row: &Resource, object: Value, fields: FieldValidation) -> Result<Decoded> {
    let api_version = row.api_version();
    let names = Names { kind: row.kind, version: row.version, api_version: &api_version };
    let mut decoded = decode_as(&names, |object| row.read(object), object, fields)?;
    row.fill_defaults(&mut decoded.object);
    Ok(decoded)
}

/// Reads a request's body as a kind that is no row of the table: an Eviction, a Scale, a TokenRequest.
pub fn read_kind<T>(call: &Call, fields: FieldValidation) -> Result<Decoded>
where
    T: k8s_openapi::Resource + serde::de::DeserializeOwned + serde::Serialize,
{
    let names = Names { kind: T::KIND, version: T::VERSION, api_version: T::API_VERSION };
    decode_as(&names, registry::typed::<T>, parse(&call.headers, &call.body)?, fields)
}

/// How a kind calls itself.
struct Names<'a> {
    kind: &'a str,
    version: &'a str,
    api_version: &'a str,
}

fn decode_as(
    names: &Names<'_>,
    read: impl Fn(&Value) -> std::result::Result<Value, String>,
    mut object: Value,
    fields: FieldValidation,
) -> Result<Decoded> {
    name_kind(names, &mut object)?;
    let cannot = |why: String| {
        Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {why}",
            names.kind, names.version, names.kind
        ))
    };
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Default::default());
    }
    let typed = read(&object).map_err(|error| cannot(go_words(&error)))?;
    let mut unknown = Vec::new();
    if fields != FieldValidation::Ignore {
        unknown_fields(&object, &typed, &mut String::new(), &mut unknown);
    }
    if fields == FieldValidation::Strict && !unknown.is_empty() {
        return Err(cannot(format!("strict decoding error: {}", unknown.join(", "))));
    }
    Ok(Decoded { object: typed, warnings: unknown })
}

/// Checks `kind` and `apiVersion`, or fills them in.
fn name_kind(names: &Names<'_>, object: &mut Value) -> Result<()> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            go_kind(object)
        )));
    };
    let want = names.api_version;
    let own = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, version) = (own("kind"), own("apiVersion"));
    if !version.is_empty() && version != want {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({want})"
        )));
    }
    if !kind.is_empty() && kind != names.kind {
        let short = version.rsplit('/').next().unwrap_or_default();
        return Err(Status::bad_request(format!(
            "{kind} in version {short:?} cannot be handled as a {}: converting ({kind}) to ({}): unknown conversion",
            names.kind, names.kind
        )));
    }
    fields.insert("kind".into(), names.kind.into());
    fields.insert("apiVersion".into(), want.into());
    Ok(())
}

/// Reads a body as an object of the row's kind, with what only the text shows: fields given twice.
pub fn read(call: &Call, row: &Resource, fields: FieldValidation) -> Result<Decoded> {
    let object = parse(&call.headers, &call.body)?;
    let twice = match fields {
        FieldValidation::Ignore => Vec::new(),
        // Protobuf has no keys to give twice.
        _ if is_yaml(media(&call.headers)) => super::duplicates::find_in_yaml(&call.body),
        _ => super::duplicates::find(&call.body),
    };
    if fields == FieldValidation::Strict && !twice.is_empty() {
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            row.kind,
            row.version,
            row.kind,
            twice.join(", ")
        )));
    }
    let mut decoded = decode(row, object, fields)?;
    decoded.warnings.splice(0..0, twice);
    Ok(decoded)
}

/// Lists the fields of `sent` that reading it as its kind lost.
fn unknown_fields(sent: &Value, kept: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (name, value) in sent.iter().filter(|(_, value)| !value.is_null()) {
                path.push_str(if length == 0 { "" } else { "." });
                path.push_str(name);
                match kept.get(name) {
                    Some(own) => unknown_fields(value, own, path, found),
                    None => found.push(format!("unknown field {path:?}")),
                }
                path.truncate(length);
            }
        }
        (Value::Array(sent), Value::Array(kept)) => {
            for (index, (value, own)) in sent.iter().zip(kept).enumerate() {
                path.push_str(&format!("[{index}]"));
                unknown_fields(value, own, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

/// serde's "invalid type" in the words of Go's JSON decoder.
fn go_words(error: &str) -> String {
    let Some((found, expected)) =
        error.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return format!("json: {error}");
    };
    let found = match found.split_whitespace().next().unwrap_or_default() {
        "integer" | "floating" => "number",
        "boolean" => "bool",
        "map" => "object",
        "sequence" => "array",
        other => other,
    };
    let expected = match expected {
        "i32" => "int32",
        "i64" => "int64",
        "a string" => "string",
        "a boolean" => "bool",
        "a map" => "map[string]string",
        "a sequence" => "[]interface {}",
        other => other.trim_start_matches("struct "),
    };
    format!("json: cannot unmarshal {found} into Go value of type {expected}")
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::registry;
    use serde_json::json;

    fn decode_pod(object: Value, fields: FieldValidation) -> Result<Decoded> {
        decode(registry::find("", "v1", "pods").unwrap(), object, fields)
    }

    #[test]
    fn unknown_fields_are_named_by_their_path() {
        let pod = json!({"spec": {"containers": [{"name": "a", "imag": "b"}]}, "foo": 1});
        let error = decode_pod(pod.clone(), FieldValidation::Strict).err().unwrap();
        assert_eq!(
            error.message,
            r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "foo", unknown field "spec.containers[0].imag""#
        );
        assert_eq!(decode_pod(pod.clone(), FieldValidation::Warn).ok().unwrap().warnings.len(), 2);
        assert!(decode_pod(pod, FieldValidation::Ignore).ok().unwrap().warnings.is_empty());
    }

    #[test]
    fn yaml_nested_beyond_reason_is_refused_before_it_is_parsed() {
        for deep in ["{a: ".repeat(200_000), "[".repeat(400_000), "- ".repeat(5_000)] {
            assert!(nests_deeply(deep.as_bytes()));
        }
        let script = "data:\n  run: |\n    if [ -f x ]; then { echo; }; fi\n".repeat(3_000);
        assert!(!nests_deeply(script.as_bytes()));
    }

    #[test]
    fn another_kind_or_version_is_refused() {
        for (object, want) in [
            (
                json!({"apiVersion": "apps/v1"}),
                "the API version in the data (apps/v1) does not match the expected API version (v1)",
            ),
            (
                json!({"kind": "ConfigMap", "apiVersion": "v1"}),
                "ConfigMap in version \"v1\" cannot be handled as a Pod",
            ),
            (json!({"spec": {"containers": 3}}), "json: cannot unmarshal number into Go value"),
            (json!([]), "couldn't get version/kind"),
        ] {
            let error = decode_pod(object, FieldValidation::Strict).err().unwrap();
            assert_eq!(error.code, 400);
            assert!(error.message.contains(want), "{}", error.message);
        }
    }
}
