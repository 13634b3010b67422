//! Objects and lists in the shape a client asked for: as stored, Table, metadata alone, YAML.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::accept::{self, Shape};
use super::call::Call;
use super::handlers::list::Found;
use super::lists;
use super::registry::Resource;
use super::respond::{self, Pieces};
use super::table::{self, IncludeObject};
use crate::api::status::{Result, Status};
use crate::control::store::Entry;

/// Answers with one encoded object.
pub fn one(call: &Call, row: &Resource, code: StatusCode, body: Bytes) -> Result<Response> {
    match accept::shape(&call.headers)? {
        Shape::Object => Ok(respond::bytes(code, body)),
        Shape::Yaml => yaml(code, &parse(&body)?),
        Shape::Metadata => Ok(respond::value(code, &metadata_only(&parse(&body)?))),
        Shape::Table => {
            let object = parse(&body)?;
            let version = object["metadata"]["resourceVersion"].clone();
            let table = table::of(
                row,
                &[object],
                &json!({"resourceVersion": version}),
                include(call)?,
                Timestamp::now(),
            );
            Ok(respond::value(code, &table))
        }
    }
}

/// Answers with a list.
pub fn list(call: &Call, row: &'static Resource, shape: Shape, found: &Found) -> Result<Response> {
    let metadata = found.metadata();
    match shape {
        Shape::Object if found.next.is_none() => {
            Ok(lists::send(&found.encode(), row, accept::gzip(&call.headers)))
        }
        Shape::Object => {
            let inside = metadata.to_string();
            let head = lists::head(row, &inside[1..inside.len() - 1]);
            Ok(respond::pieces(Pieces::new([head, found.encode().items, Bytes::from_static(b"]}")])))
        }
        Shape::Table => {
            let table =
                table::of(row, &parse_all(&found.entries)?, &metadata, include(call)?, Timestamp::now());
            Ok(respond::value(StatusCode::OK, &table))
        }
        Shape::Metadata => {
            let items: Vec<Value> = parse_all(&found.entries)?.iter().map(metadata_only).collect();
            Ok(respond::value(
                StatusCode::OK,
                &json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items,
                }),
            ))
        }
        Shape::Yaml => {
            let items = parse_all(&found.entries)?;
            yaml(
                StatusCode::OK,
                &json!({
                    "kind": row.list_kind, "apiVersion": row.api_version(), "metadata": metadata, "items": items,
                }),
            )
        }
    }
}

/// One watched object in a shape that is not the stored one.
pub fn watched(call: &Call, row: &Resource, shape: Shape, object: &Value, first: bool) -> Result<Value> {
    match shape {
        Shape::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let mut table =
                table::of(row, std::slice::from_ref(object), &metadata, include(call)?, Timestamp::now());
            if !first {
                table["columnDefinitions"] = Value::Null;
            }
            Ok(table)
        }
        Shape::Metadata => Ok(metadata_only(object)),
        Shape::Object | Shape::Yaml => Ok(object.clone()),
    }
}

/// What a table's rows carry beside their cells (`?includeObject=`).
fn include(call: &Call) -> Result<IncludeObject> {
    match call.query.text("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn parse(body: &Bytes) -> Result<Value> {
    serde_json::from_slice(body).map_err(Status::internal)
}

fn parse_all(entries: &[Entry]) -> Result<Vec<Value>> {
    entries.iter().map(|entry| parse(&entry.value)).collect()
}

fn yaml(code: StatusCode, value: &Value) -> Result<Response> {
    let text = serde_yaml_ng::to_string(value).map_err(Status::internal)?;
    Ok(respond::with_body(code, HeaderValue::from_static("application/yaml"), Body::from(text)))
}
