//! PATCH: JSON patch, merge patch and strategic merge patch; the patched object then goes an update's way.

use axum::response::Response;
use bytes::Bytes;
use http::header;
use serde_json::Value;
use std::sync::Mutex;

use super::body;
use super::options::WriteOptions;
use super::update::{self, Edit};
use crate::api::status::{Result, Status};
use crate::api::{merge_keys, patch};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{apply, respond};

/// How a patch document is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Merge,
    Strategic,
}

/// A patch document, as sent.
pub struct Patch {
    kind: Kind,
    document: Bytes,
    /// Whether it sets `metadata.resourceVersion`.
    versioned: bool,
}

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    if apply::is_asked(call) {
        return apply::answer(call, row).await;
    }
    let options = WriteOptions::read(&call.query)?;
    let patch = Patch::read(call)?;
    if patch.kind == Kind::Strategic && row.custom.is_some() {
        // Nothing says how the lists of a user's kind are merged this way.
        let text = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
        return Err(Status::new(415, "UnsupportedMediaType", text));
    }
    let edit = Patched { patch, call, row, options, warnings: Mutex::default() };
    let response = update::change(call, row, &edit, options).await?;
    Ok(respond::warn(response, &edit.warnings.into_inner().unwrap_or_default()))
}

/// A patch to the object itself.
struct Patched<'a> {
    patch: Patch,
    call: &'a Call,
    row: &'static Resource,
    options: WriteOptions,
    warnings: Mutex<Vec<String>>,
}

impl Edit for Patched<'_> {
    fn apply(&self, old: &Value) -> Result<Value> {
        let patched = self.patch.apply(self.row.group, self.row.kind, old)?;
        let decoded = body::decode(self.row, patched, self.options.fields)?;
        if let Ok(mut warnings) = self.warnings.lock() {
            *warnings = decoded.warnings;
        }
        insisting(&self.patch, update::named(self.call, self.row, decoded.object)?, old)
    }
}

/// A patch that does not speak of the version does not insist on one.
pub fn insisting(patch: &Patch, mut object: Value, old: &Value) -> Result<Value> {
    let changed = object["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"];
    let insists = patch.versioned || (patch.kind == Kind::Json && changed);
    if !insists {
        super::meta::set(&mut object, "resourceVersion", Value::Null);
    }
    Ok(object)
}

impl Patch {
    /// Takes the patch by its content type.
    pub fn read(call: &Call) -> Result<Self> {
        let kind =
            call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = match kind.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Kind::Json,
            "application/merge-patch+json" => Kind::Merge,
            "application/strategic-merge-patch+json" => Kind::Strategic,
            _ => {
                return Err(Status::new(
                    415,
                    "UnsupportedMediaType",
                    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
                ));
            }
        };
        let versioned = kind != Kind::Json
            && serde_json::from_slice::<Value>(&call.body)
                .is_ok_and(|patch| patch["metadata"]["resourceVersion"].is_string());
        Ok(Self { kind, document: call.body.clone(), versioned })
    }

    /// The object after the patch; `kind` names its type for the merging of lists.
    pub fn apply(&self, group: &str, kind: &str, old: &Value) -> Result<Value> {
        match self.kind {
            Kind::Json => patch::json(old.clone(), &self.document),
            Kind::Merge => patch::merge(old.clone(), &self.document),
            Kind::Strategic => {
                patch::strategic(old.clone(), &self.document, merge_keys::of_kind(group, kind))
            }
        }
    }
}
