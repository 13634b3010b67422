//! `certificatesigningrequests/approval`: the verdict on a request, and nothing else of it.

use axum::response::Response;
use serde_json::{Map, Value, json};

use super::status::{put, write};
use crate::api::status::Result;
use crate::control::apiserver::call::Call;
use crate::control::apiserver::handlers::meta;
use crate::control::apiserver::registry::Resource;

pub async fn answer(call: &Call, row: &'static Resource) -> Result<Response> {
    write(call, row, keep_all_but_verdict).await
}

fn keep_all_but_verdict(_: &Resource, object: &mut Value, old: &Value) {
    let mut conditions = object["status"]["conditions"].take();
    let metadata = object["metadata"].take();
    *object = old.clone();
    object["metadata"] = metadata;
    for condition in conditions.as_array_mut().into_iter().flatten() {
        let same = |one: &&Value| one["type"] == condition["type"];
        let before = old["status"]["conditions"].as_array().into_iter().flatten().find(same);
        let changed = before.is_none_or(|before| before["status"] != condition["status"]);
        stamp(condition, before, changed);
    }
    if !object["status"].is_object() {
        put(object, "status", Value::Object(Map::new()));
    }
    put(&mut object["status"], "conditions", conditions);
}

/// Fills in the times a client left out.
fn stamp(condition: &mut Value, before: Option<&Value>, changed: bool) {
    if condition["lastUpdateTime"].is_null() {
        condition["lastUpdateTime"] = json!(meta::now());
    }
    if condition["lastTransitionTime"].is_null() {
        condition["lastTransitionTime"] = match before {
            Some(before) if !changed => before["lastTransitionTime"].clone(),
            _ => json!(meta::now()),
        };
    }
}
