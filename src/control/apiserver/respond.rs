//! Answers: bodies, headers and warnings, as upstream's response writers make them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use serde_json::{Value, json};

use super::encode;
use crate::api::status::Status;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Pieces that were encoded elsewhere, sent one after the other without copying.
pub struct Pieces {
    left: VecDeque<Bytes>,
}

impl Pieces {
    pub fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self { left: pieces.into_iter().collect() }
    }

    pub fn len(&self) -> usize {
        self.left.iter().map(Bytes::len).sum()
    }
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// JSON that is encoded already.
pub fn bytes(code: StatusCode, body: Bytes) -> Response {
    with_body(code, JSON, Body::new(Full::new(body)))
}

/// JSON in pieces.
pub fn pieces(pieces: Pieces) -> Response {
    with_body(StatusCode::OK, JSON, Body::new(pieces))
}

/// A value, encoded now.
pub fn value(code: StatusCode, body: &Value) -> Response {
    bytes(code, encode::answer(body).into())
}

/// Plain text, as the health endpoints answer.
pub fn text(code: StatusCode, body: impl Into<Bytes>) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = with_body(code, kind, Body::new(Full::new(body.into())));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A failure.
pub fn failure(status: &Status) -> Response {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, &status.to_json());
    let wait = status.details.as_ref().and_then(|details| details["retryAfterSeconds"].as_u64());
    if let Some(seconds) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `metav1.Status` of something that worked and has no object to show.
pub fn success(code: StatusCode, details: Option<Value>) -> Response {
    let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    match details {
        Some(details) => body["details"] = details,
        None => body["code"] = json!(code.as_u16()),
    }
    value(code, &body)
}

/// Any body with its content type.
pub fn with_body(code: StatusCode, kind: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::CONTENT_TYPE, kind);
    response
}

/// Adds warnings, which kubectl prints: `Warning: unknown field "spec.foo"` (RFC 7234 §5.5).
pub fn warn(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let text: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// Makes a body readable for people: upstream does so for `?pretty` and for curl, wget and browsers.
pub async fn pretty(response: Response) -> Response {
    if response.headers().get(header::CONTENT_TYPE) != Some(&JSON) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return failure(&Status::internal("the response could not be read"));
    };
    let text = encode::indent(&body);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::from(text))
}

/// Sets one header whose value is ours and therefore valid.
pub fn header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
