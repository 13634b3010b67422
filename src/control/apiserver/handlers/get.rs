//! GET of one object: the stored bytes, as they are.

use axum::response::Response;
use http::StatusCode;

use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::encode;
use crate::control::apiserver::registry::Resource;
use crate::control::store::Entry;

pub fn answer(call: &Call, row: &Resource) -> Result<Response> {
    super::entry(call, row, StatusCode::OK, &find(call, row)?)
}

/// The stored object a request names.
pub fn find(call: &Call, row: &Resource) -> Result<Entry> {
    let asked = call.asked();
    let key = row.key(&asked.namespace, &asked.name);
    let entry = call.api.store.get(&row.bucket, &key);
    presented(row, entry.ok_or_else(|| Status::not_found(row.group, row.plural, &asked.name))?)
}

/// A stored object as the row has it: it may have been stored with another version.
pub fn presented(row: &Resource, entry: Entry) -> Result<Entry> {
    match row.converts() {
        true => {
            let mut entry = entry;
            entry.value = row.presented(encode::object(&entry)?).to_string().into();
            Ok(entry)
        }
        false => Ok(entry),
    }
}
