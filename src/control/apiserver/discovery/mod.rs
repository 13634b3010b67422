//! What the server has: `/api`, `/apis` and below, and `/openapi`.
//!
//! Stands for `k8s.io/apiserver/pkg/endpoints/discovery`. Plain discovery, and aggregated (v2) for
//! clients that ask for it; every document has an ETag, so that an unchanged one is sent once.

mod documents;

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::call::Call;
use super::openapi::{self, Document};
use super::{accept, respond};
use crate::api::status::{Result, Status};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a path that names no resource.
pub fn answer(call: &Call) -> Result<Response> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let path = call.info.path.trim_matches('/');
    match path.split('/').collect::<Vec<_>>().as_slice() {
        [""] => Ok(send(call, "application/json", &root())),
        ["api" | "apis"] if wants_aggregated(&call.headers) => {
            Ok(send(call, AGGREGATED, &documents::aggregated(path == "api")))
        }
        ["api"] => plain(call, Some(documents::core_versions(&server(call)))),
        ["api", version] => plain(call, documents::resource_list("", version)),
        ["apis"] => plain(call, Some(documents::group_list())),
        ["apis", group] => plain(call, documents::group(group)),
        ["apis", group, version] => plain(call, documents::resource_list(group, version)),
        ["openapi", "v2"] => second_version(call),
        ["openapi", "v3"] => plain(call, Some(slow(openapi::index))),
        ["openapi", "v3", rest @ ..] => third_version(call, &rest.join("/")),
        _ => Err(Status::no_such_path()),
    }
}

fn plain(call: &Call, document: Option<Value>) -> Result<Response> {
    let document = document.ok_or_else(Status::no_such_path)?;
    Ok(send(call, "application/json", &document))
}

/// The paths a browser is shown first.
fn root() -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in documents::groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    let rest = ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];
    paths.extend(rest.map(str::to_owned));
    json!({"paths": paths})
}

/// The address the client used, which is the one it can reach us by.
fn server(call: &Call) -> String {
    let host = call.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.unwrap_or_default().to_owned()
}

/// Whether aggregated discovery comes before plain JSON in the Accept header.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let first = accepted.flat_map(|value| value.split(',')).find_map(|clause| {
        let parts: Vec<&str> = clause.split(';').map(str::trim).collect();
        let has = |parameter: &str| parts.contains(&parameter);
        match parts.first() {
            Some(&"application/json") if parts.len() == 1 => Some(false),
            Some(&"application/json") if has("g=apidiscovery.k8s.io") && has("v=v2") => {
                Some(has("as=APIGroupDiscoveryList"))
            }
            Some(&"*/*") => Some(false),
            _ => None,
        }
    });
    first.unwrap_or(false)
}

fn send(call: &Call, kind: &'static str, document: &Value) -> Response {
    let text = document.to_string();
    let tag = etag(&hash(text.as_bytes()));
    tagged(call, kind, tag, Bytes::from(text))
}

fn tagged(call: &Call, kind: &'static str, tag: HeaderValue, body: Bytes) -> Response {
    let known = call.headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag);
    let mut response = match known {
        true => Response::new(axum::body::Body::empty()),
        false => respond::bytes(StatusCode::OK, body),
    };
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::ETAG, tag);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn hash(text: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

fn etag(hash: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("{hash:?}")).expect("a hash is hexadecimal")
}

/// `/openapi/v3/…`: with the right `hash` it may be kept for ever.
fn third_version(call: &Call, path: &str) -> Result<Response> {
    let document = slow(|| openapi::third(path)).ok_or_else(Status::no_such_path)?;
    match call.query.text("hash") {
        Some(hash) if hash != document.hash => {
            let place = format!("/openapi/v3/{path}?hash={}", document.hash);
            let mut response = Response::new(axum::body::Body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let place = HeaderValue::from_str(&place).map_err(Status::internal)?;
            response.headers_mut().insert(header::LOCATION, place);
            Ok(response)
        }
        hash => {
            let mut response = compressed(call, &document);
            if hash.is_some() {
                let for_ever = HeaderValue::from_static("public, immutable");
                response.headers_mut().insert(header::CACHE_CONTROL, for_ever);
            }
            Ok(response)
        }
    }
}

/// `/openapi/v2`, in protobuf for who asks for that.
fn second_version(call: &Call) -> Result<Response> {
    let accepted = call.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.into_iter().any(|value| value.contains("proto-openapi.spec.v2")) {
        let mut response = compressed(call, &slow(openapi::v2_protobuf));
        let kind = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return Ok(response);
    }
    accept::shape(&call.headers)?;
    Ok(compressed(call, &slow(openapi::v2)))
}

fn compressed(call: &Call, document: &Document) -> Response {
    let gzip = accept::gzip(&call.headers);
    let body = if gzip { document.compressed.clone() } else { document.text() };
    let mut response = tagged(call, "application/json", etag(&document.hash), body);
    if gzip && response.status() == StatusCode::OK {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The documents take long enough to make that other requests should not wait behind it.
fn slow<T>(make: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(make),
        _ => make(),
    }
}
