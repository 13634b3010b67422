//! `pods/log`: asks the kubelet for a container's log and passes it on as it comes
//! (`pkg/registry/core/pod/rest/log.go`, `genericrest.LocationStreamer`).

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::json;

use super::{Backend, KubeletClient, Location, Params, container_of, failed, pod_of};
use crate::api::status::{Cause, Result, Status};
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::proxy::{self, Answer, Streamed};
use crate::control::apiserver::registry;
use crate::control::apiserver::request::Query;

/// How much of a kubelet's complaint is repeated.
const COMPLAINT: usize = 50_000;

/// What of the query goes on to the kubelet, in the order Go encodes it.
const PASSED_ON: &[&str] =
    &["follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "stream", "tailLines", "timestamps"];

impl KubeletClient {
    /// A pod's log, as the kubelet sends it.
    pub async fn log(&self, namespace: &str, name: &str, query: &Query) -> Result<Response> {
        check(name, query)?;
        let row = registry::by_name("", "pods").ok_or_else(Status::no_such_path)?;
        let pod = pod_of(&self.store, row, namespace, name)?;
        let container = container_of(&pod, query.get("container").unwrap_or_default())?;
        let node = text(&pod, "/spec/nodeName");
        if node.is_empty() {
            return Ok(plain(Body::empty()));
        }
        let location = self.locate(node)?;
        let path = format!("/containerLogs/{namespace}/{name}/{container}{}", passed_on(query));
        let backend = match query.flag("insecureSkipTLSVerifyBackend") {
            true => Backend::Unverified,
            false => Backend::AsConfigured,
        };
        let answer = self
            .get(&location, &path, backend)
            .await
            .map_err(|error| failed(format!("Get \"https://{location}{path}\": {error}")))?;
        into_log(answer, name).await
    }

    /// One request on a connection of its own; an error is in Go's words.
    async fn get(&self, to: &Location, path: &str, backend: Backend) -> std::result::Result<Answer, String> {
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

fn passed_on(query: &Query) -> Params {
    let mut params = Params::default();
    for name in PASSED_ON {
        let flag = matches!(*name, "follow" | "previous" | "timestamps");
        match query.text(name) {
            Some(_) if flag && !query.flag(name) => {}
            Some(_) if flag => params.add(name, "true"),
            Some(value) => params.add(name, value),
            None => {}
        }
    }
    params
}

/// `ValidatePodLogOptions`.
fn check(pod: &str, query: &Query) -> Result<()> {
    let number = |name: &str| -> Result<Option<i64>> {
        let Some(text) = query.text(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    };
    let mut causes = Vec::new();
    if let Some(lines) = number("tailLines")?.filter(|lines| *lines < 0) {
        causes.push(Cause::invalid("tailLines", &json!(lines), "must be greater than or equal to 0"));
    }
    if let Some(bytes) = number("limitBytes")?.filter(|bytes| *bytes < 1) {
        causes.push(Cause::invalid("limitBytes", &json!(bytes), "must be greater than 0"));
    }
    match (number("sinceSeconds")?, query.text("sinceTime")) {
        (Some(_), Some(_)) => {
            causes
                .push(Cause::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        (Some(seconds), None) if seconds < 1 => {
            causes.push(Cause::invalid("sinceSeconds", &json!(seconds), "must be greater than 0"));
        }
        _ => {}
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("", "PodLogOptions", pod, &causes)) }
}
