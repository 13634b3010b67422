//! GET of one object: the stored bytes, as they are.

use axum::response::Response;
use http::StatusCode;

use crate::api::status::{Result, Status};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;
use crate::control::apiserver::{encode, versions};
use crate::control::store::Entry;

pub async fn answer(call: &Call, row: &Resource) -> Result<Response> {
    super::entry(call, row, StatusCode::OK, &find(call, row).await?).await
}

/// The stored object a request names.
pub async fn find(call: &Call, row: &Resource) -> Result<Entry> {
    let asked = call.asked();
    let key = row.key(&asked.namespace, &asked.name);
    let entry = call.api.store.get(&row.bucket, &key);
    presented(call, row, entry.ok_or_else(|| Status::not_found(row.group, row.plural, &asked.name))?).await
}

/// A stored object as the row has it: it may have been stored with another version.
pub async fn presented(call: &Call, row: &Resource, entry: Entry) -> Result<Entry> {
    match row.converts() {
        true => {
            let mut entry = entry;
            let object = versions::shown(&call.api, row, encode::object(&entry)?).await?;
            entry.value = object.to_string().into();
            Ok(entry)
        }
        false => Ok(entry),
    }
}
