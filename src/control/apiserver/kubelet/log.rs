//! `pods/log`: asks the kubelet for a container's log and passes it on as it comes
//! (`pkg/registry/core/pod/rest/log.go`, `genericrest.LocationStreamer`).

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use super::counts::{LOGS, TLS_FAILURES};
use super::log_options::LogOptions;
use super::{Backend, KubeletClient, Location, container_of, failed, pod_of};
use crate::api::status::{Result, Status};
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::proxy::{self, Answer, Streamed};
use crate::control::apiserver::registry;
use crate::control::apiserver::request::Query;

/// How much of a kubelet's complaint is repeated.
const COMPLAINT: usize = 50_000;

impl KubeletClient {
    /// A pod's log, as the kubelet sends it.
    pub async fn log(&self, namespace: &str, name: &str, query: &Query) -> Result<Response> {
        let options = LogOptions::read(query)?;
        options.check(name)?;
        let row = registry::by_name("", "pods").ok_or_else(Status::no_such_path)?;
        let pod = pod_of(&self.store, row, namespace, name)?;
        let container = container_of(&pod, query.get("container").unwrap_or_default())?;
        let node = text(&pod, "/spec/nodeName");
        if node.is_empty() {
            let mut nothing = plain(Body::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        }
        let location = self.locate(node)?;
        let path = format!("/containerLogs/{namespace}/{name}/{container}{}", options.params());
        let backend = match query.flag("insecureSkipTLSVerifyBackend") {
            true => Backend::Unverified,
            false => Backend::AsConfigured,
        };
        self.count(backend);
        let answer = self.get(&location, &path, backend).await.map_err(|error| {
            if error.contains("x509:") {
                self.counts.add(TLS_FAILURES, &[]);
            }
            failed(format!("Get \"https://{location}{path}\": {error}"))
        })?;
        into_log(answer, name).await
    }

    fn count(&self, backend: Backend) {
        let usage = match backend {
            Backend::AsConfigured => "enforce_tls",
            Backend::Unverified => "skip_tls_allowed",
        };
        self.counts.add(LOGS, &[("usage", usage)]);
    }

    /// One request on a connection of its own; an error is in Go's words.
    pub(super) async fn get(
        &self,
        to: &Location,
        path: &str,
        backend: Backend,
    ) -> std::result::Result<Answer, String> {
        let stream = self.connect(to, backend).await.map_err(|error| error.to_string())?;
        let request = Request::get(path)
            .header(header::HOST, to.to_string())
            .header(header::USER_AGENT, concat!("kube-apiserver/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        proxy::ask(stream, request).await
    }
}

/// A log, or what the kubelet has against giving it.
async fn into_log(answer: Answer, pod: &str) -> Result<Response> {
    let Answer { response, connection, .. } = answer;
    let code = response.status().as_u16();
    let elsewhere = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    match (code, elsewhere) {
        (200..=206, _) => Ok(plain(Body::new(Streamed::new(response.into_body(), connection)))),
        // A kubelet that redirects would send our credentials elsewhere.
        (301 | 302 | 303 | 307 | 308, Some(elsewhere)) => {
            Err(failed(format!("Get {elsewhere:?}: redirects forbidden")))
        }
        _ => {
            let read = Limited::new(response.into_body(), COMPLAINT).collect().await;
            let bytes = read.map(|body| body.to_bytes()).unwrap_or_default();
            Err(complaint(code, &String::from_utf8_lossy(&bytes), pod))
        }
    }
}

fn plain(body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A kubelet's refusal as clients read it (`NewGenericServerResponse`).
fn complaint(code: u16, text: &str, pod: &str) -> Status {
    let (reason, message) = match code {
        500 => return Status::internal(text),
        400 => return Status::bad_request(text),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials"),
        403 => ("Forbidden", text),
        404 => ("NotFound", "the server could not find the requested resource"),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        _ => {
            let message = format!(
                "the server responded with the status code {code} but did not return more information"
            );
            return about(code, "", &message, pod);
        }
    };
    about(code, reason, message, pod)
}

fn about(code: u16, reason: &'static str, message: &str, pod: &str) -> Status {
    Status::new(code, reason, format!("{message} ( pods/log {pod})"))
        .with_details(json!({"name": pod, "kind": "pods/log"}))
}
