//! Passing an upgrade on (`UpgradeAwareHandler.tryUpgrade`): the backend answers first, and only its 101
//! makes the client's connection one with it.
//!
//! An upgrade that fails is repeated to the client and both connections are closed: what comes after it on
//! the client's is nobody's (CVE-2018-1002105). A redirect is never passed on (CVE-2020-8559).

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Client;
use super::backend::{self, Answer};
use super::museum::{self, Exhibit, Museum};
use super::splice::splice;
use crate::api::status::{Result, Status};

/// How much of a refusal is repeated, and how long it may take.
const REFUSAL: usize = 1 << 20;
const REFUSAL_TIME: Duration = Duration::from_secs(10);

/// Whether a request asks to leave HTTP (`httpstream.IsUpgradeRequest`).
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Sends the request to a backend and answers the client with what comes of it.
pub async fn pass<S>(stream: S, request: Request<Body>, client: Client, museum: &Museum) -> Result<Response>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match accepted(ask(stream, request).await?, &client, museum).await? {
        Verdict::Refused(response) => Ok(response),
        Verdict::Accepted(answer) => Ok(joined(*answer, client.upgrade.ok_or_else(no_connection)?)),
    }
}

/// What a backend made of an upgrade.
pub enum Verdict {
    Accepted(Box<Answer>),
    /// To be repeated to the client.
    Refused(Response),
}

/// Sends a request for an upgrade and waits for the backend's word.
pub async fn ask<S>(stream: S, request: Request<Body>) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    backend::ask(stream, request).await.map_err(|error| {
        let text = if error == "EOF" { "unexpected EOF".into() } else { error };
        Status::new(500, "", text)
    })
}

/// Tells a 101 from a refusal, and both from what may not be passed on.
pub async fn accepted(answer: Answer, client: &Client, museum: &Museum) -> Result<Verdict> {
    let status = answer.response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Verdict::Accepted(Box::new(answer)));
    }
    if status.as_u16() < 400 && !museum.shows(Exhibit::Redirects) {
        let text = format!("invalid upgrade response: status code {}", status.as_u16());
        tracing::error!(text, "Proxy upgrade error");
        return Err(Status::new(500, "", text));
    }
    refused(answer, client, museum).await.map(Verdict::Refused)
}

/// HTTP/2 does not let go of its connection.
pub fn no_connection() -> Status {
    Status::new(500, "", "request connection cannot be hijacked")
}

/// Gives the client the backend's 101 and makes one connection of the two.
pub fn joined(answer: Answer, client: OnUpgrade) -> Response {
    let Answer { mut response, sender, connection } = answer;
    let backend = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        // The backend's task ends by itself once it has handed over.
        let _until_then = (sender, connection);
        match tokio::try_join!(client, backend) {
            Ok((client, backend)) => {
                let outcome = splice(TokioIo::new(client), TokioIo::new(backend)).await;
                tracing::debug!(?outcome, "an upgraded connection ended");
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
    response.map(|_| Body::empty())
}

/// Repeats a backend's refusal.
async fn refused(answer: Answer, client: &Client, museum: &Museum) -> Result<Response> {
    let Answer { response, sender, connection } = answer;
    let (mut head, body) = response.into_parts();
    let body = tokio::time::timeout(REFUSAL_TIME, whole(body)).await.unwrap_or_default();
    head.headers.remove(header::TRANSFER_ENCODING);
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    match &client.peer {
        Some(peer) if museum.shows(Exhibit::Pipelining) => museum::join(peer, sender, connection),
        _ => drop(head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
    }
    Ok(Response::from_parts(head, Body::from(body)))
}

/// A refusal's body, as much as comes of it.
async fn whole(body: Incoming) -> bytes::Bytes {
    Limited::new(body, REFUSAL).collect().await.map(|body| body.to_bytes()).unwrap_or_default()
}
