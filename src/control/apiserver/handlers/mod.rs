//! One set of handlers for every row of the table (`k8s.io/apiserver/pkg/endpoints/handlers` and
//! `pkg/registry/generic/registry`).

pub mod admit;
pub mod body;
pub mod create;
pub mod delete;
pub mod duplicates;
pub mod get;
pub mod list;
pub mod meta;
pub mod options;
pub mod patch;
pub mod select;
pub mod update;
pub mod watch;

use axum::response::Response;
use http::StatusCode;
use serde_json::Value;

use super::call::Call;
use super::components;
use super::metrics_api;
use super::respond;
use super::shape;
use super::{registry, subresources};
use crate::api::status::{Result, Status};
use crate::control::store::{Entry, StoreError};
use crate::net::go_text;

/// Answers a request for a resource that passed authorization.
pub async fn answer(call: &Call) -> Result<Response> {
    let asked = call.asked();
    let row =
        registry::find(&asked.group, &asked.version, &asked.resource).ok_or_else(Status::no_such_path)?;
    if !asked.subresource.is_empty() {
        return subresources::answer(call, row).await;
    }
    let across = row.namespaced && asked.namespace.is_empty();
    let verb = call.info.verb.as_str();
    let collection = matches!(verb, "list" | "watch" | "create" | "deletecollection");
    let misplaced = (across && !matches!(verb, "list" | "watch")) || (!collection && asked.name.is_empty());
    let named = matches!(verb, "create" | "deletecollection")
        && !asked.name.is_empty()
        && asked.field_selector.is_empty();
    if !row.verbs.contains(&verb) || misplaced || named {
        return Err(Status::method_not_allowed());
    }
    if let Some(warning) = row.custom().and_then(|custom| custom.warning.clone()) {
        call.notes.warn(warning);
    }
    if row.group == metrics_api::GROUP {
        return metrics_api::answer(call, row).await;
    }
    if row.plural == components::PLURAL && row.group.is_empty() {
        return components::answer(call, row).await;
    }
    let response = match verb {
        "get" => get::answer(call, row).await,
        "list" => list::answer(call, row).await,
        "watch" => watch::answer(call, row).await,
        "create" => create::answer(call, row).await,
        "update" => update::answer(call, row).await,
        "patch" => patch::answer(call, row).await,
        "delete" => delete::answer(call, row).await,
        "deletecollection" => delete::collection(call, row).await,
        _ => Err(Status::method_not_allowed()),
    };
    match (row.group, row.kind) {
        ("", "Endpoints") => Ok(respond::warn(response?, &[ENDPOINTS_ARE_OLD.into()])),
        _ => response,
    }
}

/// Said to everybody who still uses them (KEP-4974).
const ENDPOINTS_ARE_OLD: &str = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// An object that was just stored, in the shape asked for; plain JSON goes out as stored.
pub async fn entry(
    call: &Call,
    row: &registry::Resource,
    code: StatusCode,
    entry: &Entry,
) -> Result<Response> {
    shape::one(call, row, code, get::presented(call, row, entry.clone()).await?.value)
}

/// An object that is not stored (a dry run), in the shape asked for.
pub fn unstored(call: &Call, row: &registry::Resource, code: StatusCode, object: &Value) -> Result<Response> {
    shape::one(call, row, code, object.to_string().into())
}

/// What a failed write means to the client.
pub fn write_failed(error: StoreError, group: &str, resource: &str, name: &str) -> Status {
    match error {
        StoreError::Exists => Status::already_exists(group, resource, name),
        StoreError::Missing => Status::not_found(group, resource, name),
        StoreError::Modified { .. } => Status::modified(group, resource, name),
        StoreError::Closed => shutting_down(),
        error => {
            let text = match &error {
                StoreError::Io(cause) => format!("{error}: {}", go_text(cause)),
                _ => error.to_string(),
            };
            tracing::error!(error = text, resource, name, "a write failed");
            Status::internal(text)
        }
    }
}

/// Said to requests that are still here when the store closes; clients retry.
pub fn shutting_down() -> Status {
    Status::new(503, "ServiceUnavailable", "The apiserver is shutting down, please try again later.")
        .with_details(serde_json::json!({"retryAfterSeconds": 1}))
}
