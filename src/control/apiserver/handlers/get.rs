//! GET of one object: the stored bytes, as they are.

use axum::response::Response;
use http::StatusCode;

use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::store::Entry;

pub fn answer(call: &Call, row: &Resource) -> Result<Response> {
    super::entry(call, row, StatusCode::OK, &find(call, row)?)
}

/// The stored object a request names.
pub fn find(call: &Call, row: &Resource) -> Result<Entry> {
    let asked = call.asked();
    let key = row.key(&asked.namespace, &asked.name);
    call.api.store.get(&row.bucket, &key).ok_or_else(|| Status::not_found(row.group, row.plural, &asked.name))
}
