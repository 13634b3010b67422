//! `/livez`, `/readyz`, `/healthz`, `/version`, `/metrics`.

use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use super::call::Call;
use super::respond;
use super::server::Api;
use crate::api::status::{Result, Status};

/// What `kubectl version` shows as the server's.
pub const VERSION: &str = "v1.36.2";

/// Answers a path that is no resource's, if it is one of these.
pub fn answer(call: &Call) -> Option<Result<Response>> {
    let path = call.info.path.trim_end_matches('/');
    let (first, rest) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    Some(match (first, rest) {
        ("livez" | "readyz" | "healthz", "") => Ok(checks(call, first)),
        ("livez" | "readyz" | "healthz", name) => one(&call.api, name),
        ("version", "") => Ok(version()),
        ("metrics", "") => Ok(metrics(&call.api)),
        _ => return None,
    })
}

/// The checks by their upstream names, each with what is wrong now.
fn all(api: &Api) -> [(&'static str, Option<&'static str>); 4] {
    let stopping = api.stopping().then_some("process is shutting down");
    [
        ("ping", None),
        ("log", None),
        ("etcd", (!api.store_open()).then_some("the store is closed")),
        ("shutdown", stopping),
    ]
}

fn checks(call: &Call, name: &str) -> Response {
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    // A server that is going away is alive until it has gone.
    let relevant = all(&call.api)
        .into_iter()
        .filter(|(check, _)| !excluded.contains(check) && (name == "readyz" || *check != "shutdown"));
    let mut text = String::new();
    let mut failed = false;
    for (check, wrong) in relevant {
        failed |= wrong.is_some();
        text += &match wrong {
            None => format!("[+]{check} ok\n"),
            Some(_) => format!("[-]{check} failed: reason withheld\n"),
        };
    }
    match failed {
        true => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{name} check failed\n")),
        false if call.query.get("verbose").is_some() => {
            respond::text(StatusCode::OK, format!("{text}{name} check passed\n"))
        }
        false => respond::text(StatusCode::OK, "ok"),
    }
}

fn one(api: &Api, name: &str) -> Result<Response> {
    let found = all(api).into_iter().find(|(check, _)| *check == name).ok_or_else(Status::no_such_path)?;
    Ok(match found.1 {
        None => respond::text(StatusCode::OK, "ok"),
        Some(why) => {
            respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
        }
    })
}

fn version() -> Response {
    respond::value(
        StatusCode::OK,
        &json!({
            "major": "1",
            "minor": "36",
            "emulationMajor": "1",
            "emulationMinor": "36",
            "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "35",
            "gitVersion": VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }),
        }),
    )
}

/// The few numbers that say how the server is doing, under upstream's names.
fn metrics(api: &Api) -> Response {
    let requests = api.served();
    let inflight = api.inflight();
    let revision = api.store.revision();
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let streams = api.kubelets.counts.page();
    respond::text(
        StatusCode::OK,
        format!(
            "# HELP apiserver_request_total Counter of apiserver requests.\n# TYPE apiserver_request_total counter\napiserver_request_total {requests}\n\
             # HELP apiserver_current_inflight_requests Number of requests in flight, watches left out.\n# TYPE apiserver_current_inflight_requests gauge\napiserver_current_inflight_requests {inflight}\n\
             # HELP minilab_store_revision The newest committed revision.\n# TYPE minilab_store_revision gauge\nminilab_store_revision {revision}\n\
             # HELP minilab_tasks Tasks of the runtime that are alive, as go_goroutines says it of upstream.\n# TYPE minilab_tasks gauge\nminilab_tasks {tasks}\n\
             {streams}"
        ),
    )
}
