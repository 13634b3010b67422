//! The way of a request: request info → authentication → impersonation → audit → authorization → body → handler.
//!
//! Plain functions in the order of upstream's `DefaultBuildHandlerChain`. Admission comes later, in the
//! handlers of writes, when the object is known.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::authn::Credentials;
use super::authz::{self, Decision};
use super::call::Call;
use super::handlers::body;
use super::proxy::{self, Client, museum};
use super::request::{Query, RequestInfo};
use super::server::Api;
use super::user::UserInfo;
use super::{discovery, handlers, health, identity, impersonate, respond};
use crate::api::status::{Result, Status};
use crate::net::Peer;

/// Answers one request, whatever becomes of it.
pub async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    let request = match museum::pipelined(peer.as_ref(), request).await {
        Ok(answered) => return answered,
        Err(request) => request,
    };
    let (mut head, incoming) = request.into_parts();
    let query = Query::parse(head.uri.query());
    let info = RequestInfo::parse(&head.method, head.uri.path(), &query);
    let _counted = api.count(!proxy::is_long_running(&info));
    let pretty = wants_pretty(&query, &head.headers);
    let listener = peer.as_ref().map_or("secure", |peer| peer.listener);
    let user = match authenticate(&api, peer.as_ref(), &head.headers, &info) {
        Ok(user) => user,
        Err(status) => return refused(&status),
    };
    let user = match impersonate::user(&api.door(listener).authorizer, user, &head.headers) {
        Ok(user) => user,
        Err(status) => return respond::failure(&status),
    };
    let (method, headers) = (head.method, head.headers);
    let mut call = Call { api, user, listener, info, method, query, headers, body: Bytes::new() };
    audit(&call);
    if proxy::takes(&call.info) {
        let upgrade = head.extensions.remove();
        let (method, headers) = (call.method.clone(), call.headers.clone());
        let client = Client { method, uri: head.uri, headers, body: incoming, upgrade, peer };
        return match authorize(&call) {
            Ok(()) => proxy::answer(&call, client).await,
            Err(status) => respond::failure(&status),
        };
    }
    let outcome = async {
        authorize(&call)?;
        call.body = read_body(incoming).await?;
        route(&call).await
    };
    let mut response = match outcome.await {
        Ok(response) if pretty => respond::pretty(response).await,
        Ok(response) => response,
        Err(status) => respond::failure(&status),
    };
    if call.method == http::Method::HEAD {
        // Over HTTP/2 hyper would send it.
        *response.body_mut() = axum::body::Body::empty();
    }
    response
}

fn authenticate(api: &Api, peer: Option<&Peer>, headers: &HeaderMap, info: &RequestInfo) -> Result<UserInfo> {
    let door = api.door(peer.map_or("secure", |peer| peer.listener));
    let certificates = peer.map(|peer| &*peer.certificates).unwrap_or_default();
    door.authenticator.authenticate(Credentials { headers, certificates, path: &info.path })
}

/// 401 closes the connection, as upstream does since CVE-2023-44487.
fn refused(status: &Status) -> Response {
    respond::header(respond::failure(status), header::CONNECTION, "close")
}

fn authorize(call: &Call) -> Result<()> {
    match call.api.door(call.listener).authorizer.authorize(&call.user, &call.info) {
        Decision::Allow { .. } => Ok(()),
        Decision::NoOpinion { reason } => Err(authz::forbidden(&call.user, &call.info, &reason)),
    }
}

/// Where audit events are made; for now they only go to the debug log.
fn audit(call: &Call) {
    tracing::debug!(verb = call.info.verb, path = call.info.path, user = call.user.name, "request");
}

async fn read_body(incoming: Incoming) -> Result<Bytes> {
    if hyper::body::Body::is_end_stream(&incoming) {
        return Ok(Bytes::new());
    }
    match Limited::new(incoming, body::LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(body::too_large()),
        Err(_) => Err(Status::bad_request("unexpected EOF")),
    }
}

async fn route(call: &Call) -> Result<Response> {
    if call.info.resource.is_some() {
        return handlers::answer(call).await;
    }
    if let Some(answer) = health::answer(call).or_else(|| identity::answer(call)) {
        return answer;
    }
    discovery::answer(call)
}

/// Upstream indents for `?pretty`, and unasked for what people read: curl, wget, browsers.
fn wants_pretty(query: &Query, headers: &HeaderMap) -> bool {
    if query.flag("watch") {
        return false;
    }
    if query.get("pretty").is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla"].iter().any(|reader| agent.starts_with(reader))
}
