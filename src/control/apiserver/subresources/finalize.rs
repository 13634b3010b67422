//! `namespaces/finalize`: the namespace controller takes its finalizer off; with the last one the
//! namespace goes.

use axum::response::Response;
use serde_json::Value;

use super::status::{put, write};
use crate::api::status::Result;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    write(call, row, keep_all_but_finalizers).await
}

fn keep_all_but_finalizers(_: &Resource, object: &mut Value, old: &Value) {
    let finalizers = object["spec"]["finalizers"].take();
    let metadata = object["metadata"].take();
    *object = old.clone();
    object["metadata"] = metadata;
    if object["spec"].is_object() {
        put(&mut object["spec"], "finalizers", finalizers);
    }
}
