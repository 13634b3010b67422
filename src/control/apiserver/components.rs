//! ComponentStatus (`pkg/registry/core/componentstatus`): asks scheduler and controller manager on this machine how
//! they are, as old scripts still do with `kubectl get cs`. Nothing of it is stored.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::accept::{self, Shape};
use super::call::Call;
use super::registry::Resource;
use super::remote::{Remote, RemoteError};
use super::table::cells::{self, NAME, string, text};
use super::table::{self, IncludeObject};
use super::{registry, respond};
use crate::api::selector::LabelSelector;
use crate::api::status::{Result, Status};
use crate::net::{Direct, Verify};

pub const PLURAL: &str = "componentstatuses";
const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";
const PATIENCE: Duration = Duration::from_secs(20);
/// Who is asked, and where.
const ASKED: [(&str, &str); 2] = [
    ("controller-manager", "https://127.0.0.1:10257/healthz"),
    ("scheduler", "https://127.0.0.1:10259/healthz"),
];

pub static STRATEGY: registry::Strategy =
    registry::Strategy { columns: COLUMNS, row: cells, ..registry::strategies::PLAIN };

const COLUMNS: &[registry::Column] = &[
    NAME,
    text("Status", "Status of the component conditions"),
    text("Message", "Message of the component conditions"),
    text("Error", "Error of the component conditions"),
];

fn cells(object: &Value, _: Timestamp) -> Vec<Value> {
    let condition = &object["conditions"][0];
    let status = match string(condition, "/status") {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    };
    vec![
        cells::name(object),
        status.into(),
        string(condition, "/message").into(),
        string(condition, "/error").into(),
    ]
}

pub async fn answer(call: &Call, row: &Resource) -> Result<Response> {
    call.notes.warn(DEPRECATED.to_owned());
    let name = &call.asked().name;
    let selector = LabelSelector::parse(&call.asked().label_selector)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    let mut all = vec![component(
        "etcd-0",
        call.api.store_open().then(|| "ok".to_owned()).ok_or_else(|| "the store is closed".to_owned()),
    )];
    let asking = ASKED.map(|(name, url)| async move { component(name, ask(url).await) });
    all.extend(futures_util::future::join_all(asking).await);
    all.sort_by_key(|one| one["metadata"]["name"].to_string());
    all.retain(|one| selector.matches(&one["metadata"]["labels"]));
    if call.info.verb == "get" {
        let found = all.into_iter().find(|one| one["metadata"]["name"] == name.as_str());
        let one = found.ok_or_else(|| Status::not_found("", PLURAL, name))?;
        return shown(call, row, std::slice::from_ref(&one), &one);
    }
    let list = json!({"kind": row.list_kind, "apiVersion": "v1", "metadata": {}, "items": all});
    shown(call, row, &all, &list)
}

fn shown(call: &Call, row: &Resource, objects: &[Value], whole: &Value) -> Result<Response> {
    let body = match accept::shape(&call.headers)? {
        Shape::Table => table::of(row, objects, &json!({}), IncludeObject::Metadata, Timestamp::now()),
        _ => whole.clone(),
    };
    Ok(respond::value(StatusCode::OK, &body))
}

/// What a component says of itself, or why it says nothing.
async fn ask(url: &str) -> std::result::Result<String, String> {
    let remote = Remote::new(url, &Verify::Unverified, None, PATIENCE, Arc::new(Direct));
    let answer = remote.map_err(|error| error.to_string())?.fetch().await;
    match answer {
        Ok(body) => Ok(String::from_utf8_lossy(&body).into_owned()),
        Err(RemoteError::Answer { code, body }) => {
            Err(format!("HTTP probe failed with statuscode: {code}: {body}"))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn component(name: &str, said: std::result::Result<String, String>) -> Value {
    let (status, message) = match said {
        Ok(message) => ("True", message),
        Err(message) => ("False", message),
    };
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
        "conditions": [{"type": "Healthy", "status": status, "message": message}],
    })
}
