//! The way of a request: request info → authentication → audit → impersonation → authorization → body → handler.
//!
//! Plain functions in the order of upstream's `DefaultBuildHandlerChain`. Admission comes later, in the
//! handlers of writes, when the object is known.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::audit::{Arrived, Trail};
use super::authn::{Credentials, Owner};
use super::authz::{self, Decision};
use super::call::{Call, Notes};
use super::handlers::body;
use super::proxy::{self, Client, museum};
use super::request::{Query, RequestInfo};
use super::server::Api;
use super::user::UserInfo;
use super::{aggregate, discovery, handlers, health, identity, impersonate, messages, respond};
use crate::api::status::{Result, Status};
use crate::net::Peer;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A client's own audit id is cut to this.
const LONGEST_ID: usize = 64;

/// Answers one request, whatever becomes of it.
pub async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Response {
    let id = audit_id(request.headers());
    let peer = request.extensions().get::<Peer>().cloned();
    let response = match museum::pipelined(peer.as_ref(), request).await {
        Ok(answered) => return answered,
        Err(request) => admitted(api, request, &id).await,
    };
    respond::header(response, AUDIT_ID, &id)
}

/// Finds out who asks, and starts the audit trail.
async fn admitted(api: Arc<Api>, request: Request<Incoming>, id: &str) -> Response {
    let at = jiff::Timestamp::now();
    let (mut head, incoming) = request.into_parts();
    let query = Query::parse(head.uri.query());
    let info = RequestInfo::parse(&head.method, head.uri.path(), &query);
    let _counted = api.count(!proxy::is_long_running(&info));
    let peer = head.extensions.get::<Peer>().cloned();
    let listener = peer.as_ref().map_or("secure", |peer| peer.listener);
    let owner = authenticate(&api, peer.as_ref(), &head.headers, &info).await;
    let uri = head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string);
    let mut trail = api.audit.as_ref().and_then(|audit| {
        let nobody = UserInfo::default();
        let user = owner.as_ref().map_or(&nobody, |owner| &owner.user);
        let from = peer.as_ref().map(|peer| peer.address.ip());
        audit.arrived(&Arrived { id, uri: &uri, info: &info, user, headers: &head.headers, from, at })
    });
    let attempted = attempted(&head.headers, peer.as_ref());
    // From here on nobody may see or pass on what the caller is known by.
    api.door(listener).authenticator.strip(&mut head.headers);
    let owner = match owner {
        Ok(owner) => owner,
        Err(status) => {
            if let Some(trail) = trail {
                trail.refused(&status, attempted);
            }
            hear_out(incoming);
            return refused(&status);
        }
    };
    let pretty = wants_pretty(&query, &head.headers);
    if let Some(trail) = &mut trail {
        owner.annotations.iter().for_each(|(key, value)| trail.annotate(key, value));
        if trail.keeps_answer() {
            head.headers.remove(header::ACCEPT_ENCODING);
        }
        if !trail.received() {
            // `responsewriters.InternalError`, which is no Status.
            let text = format!("Internal Server Error: {uri:?}: failed to store audit event\n");
            return respond::text(http::StatusCode::INTERNAL_SERVER_ERROR, text);
        }
    }
    let upgrade = head.extensions.remove();
    let (method, headers, user) = (head.method, head.headers, owner.user);
    let notes = Arc::new(Notes::default());
    let mut call = Call { api, user, listener, info, method, query, headers, body: Bytes::new(), notes };
    let inward = Inward { uri: head.uri, body: incoming, upgrade, peer };
    let outcome = handled(&mut call, inward, &mut trail).await;
    let failure = outcome.as_ref().err().cloned();
    let mut response = match outcome {
        // What is passed on is passed on as it is.
        Ok(response) if pretty && !proxy::takes(&call.info) && aggregate::of(&call.info).is_none() => {
            respond::pretty(response).await
        }
        Ok(response) => response,
        Err(status) => respond::failure(&status),
    };
    response = respond::warn(response, &call.notes.warnings());
    if let Some(mut trail) = trail {
        call.notes.annotations().iter().for_each(|(key, value)| trail.annotate(key, value));
        response = trail.answered(response, failure.as_ref(), proxy::is_long_running(&call.info)).await;
    }
    if call.method == http::Method::HEAD {
        // Over HTTP/2 hyper would send it.
        *response.body_mut() = axum::body::Body::empty();
    }
    response
}

/// The part of a request that only some handlers want: its body as it comes, its connection.
struct Inward {
    uri: Uri,
    body: Incoming,
    upgrade: Option<OnUpgrade>,
    peer: Option<Peer>,
}

/// Impersonation, then a seat for the rest.
async fn handled(call: &mut Call, inward: Inward, trail: &mut Option<Trail>) -> Result<Response> {
    let authorizer = call.api.door(call.listener).authorizer.clone();
    let acting = impersonate::user(&authorizer, &call.user, &call.info, &mut call.headers).await?;
    if let Some(acting) = acting {
        if let Some(trail) = trail {
            trail.impersonates(&acting.user, &acting.constraint);
        }
        call.user = acting.user;
    }
    let long = proxy::is_long_running(&call.info);
    let seat = match call.api.fairness.enter(&call.api.store, &call.user, &call.info, long).await {
        Ok(seat) => seat,
        Err(turned_away) => return Ok(*turned_away),
    };
    let answer = let_in(call, inward, trail).await;
    answer.map(|answer| seat.tell(answer))
}

/// What has a seat: authorization, the body, the handler.
async fn let_in(call: &mut Call, inward: Inward, trail: &mut Option<Trail>) -> Result<Response> {
    if let Some(answer) = authorize(call, &inward.uri).await? {
        return Ok(answer);
    }
    if proxy::takes(&call.info) {
        let Inward { uri, body, upgrade, peer } = inward;
        let (method, headers) = (call.method.clone(), call.headers.clone());
        return Ok(proxy::answer(call, Client { method, uri, headers, body, upgrade, peer }).await);
    }
    if let Some(remote) = aggregate::of(&call.info) {
        let Inward { uri, body, upgrade, peer } = inward;
        let (method, headers) = (call.method.clone(), call.headers.clone());
        let client = Client { method, uri, headers, body, upgrade, peer };
        return Ok(proxy::aggregated::answer(call, &remote, client).await);
    }
    let upgrade = inward.upgrade;
    call.body = read_body(inward.body).await?;
    if let Some(trail) = trail
        && trail.keeps_request()
        && !call.body.is_empty()
        && let Ok(object) = sent(call)
    {
        trail.request(object);
    }
    let answer = route(call).await?;
    Ok(if messages::wanted(call) { messages::switch(call, upgrade, answer) } else { answer })
}

/// The body as audit keeps it; a patch is JSON of its own kind.
fn sent(call: &Call) -> Result<serde_json::Value> {
    match call.method == http::Method::PATCH {
        true => serde_json::from_slice(&call.body).map_err(|error| Status::bad_request(error.to_string())),
        false => body::parse(&call.headers, &call.body),
    }
}

async fn authenticate(
    api: &Api,
    peer: Option<&Peer>,
    headers: &HeaderMap,
    info: &RequestInfo,
) -> Result<Owner> {
    let door = api.door(peer.map_or("secure", |peer| peer.listener));
    let certificates = peer.map(|peer| &*peer.certificates).unwrap_or_default();
    door.authenticator.authenticate(Credentials { headers, certificates, path: &info.path }).await
}

/// What a refused caller tried, for the audit log.
fn attempted(headers: &HeaderMap, peer: Option<&Peer>) -> &'static str {
    match (
        headers.contains_key(header::AUTHORIZATION),
        peer.is_some_and(|peer| !peer.certificates.is_empty()),
    ) {
        (true, true) => "x509, bearer",
        (true, false) => "bearer",
        (false, true) => "x509",
        (false, false) => "",
    }
}

/// 401 closes the connection, as upstream does since CVE-2023-44487.
fn refused(status: &Status) -> Response {
    respond::header(respond::failure(status), header::CONNECTION, "close")
}

/// Nothing when the caller may; the answer to send when whoever decides could not be asked.
async fn authorize(call: &Call, uri: &Uri) -> Result<Option<Response>> {
    let decision = call.api.door(call.listener).authorizer.authorize(&call.user, &call.info).await;
    let (verdict, reason) = match &decision {
        Decision::Allow { reason } => ("allow", reason.to_string()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => ("forbid", reason.clone()),
        Decision::Failed { error, .. } => {
            call.notes.annotate("authorization.k8s.io/reason", "internal error");
            // `responsewriters.InternalError`, which is no Status.
            let asked = uri.path_and_query().map_or("/", |asked| asked.as_str());
            let text = format!("Internal Server Error: {asked:?}: {error}\n");
            return Ok(Some(respond::text(http::StatusCode::INTERNAL_SERVER_ERROR, text)));
        }
    };
    call.notes.annotate("authorization.k8s.io/decision", verdict);
    call.notes.annotate("authorization.k8s.io/reason", &reason);
    match decision.is_allowed() {
        true => Ok(None),
        false => Err(authz::forbidden(&call.user, &call.info, &reason)),
    }
}

/// The client's id for this request, or one of ours.
fn audit_id(headers: &HeaderMap) -> String {
    let given =
        headers.get(AUDIT_ID).and_then(|value| value.to_str().ok()).map(str::trim).unwrap_or_default();
    match given.is_empty() {
        true => uuid::Uuid::new_v4().to_string(),
        false => given.chars().take(LONGEST_ID).collect(),
    }
}

async fn read_body(incoming: Incoming) -> Result<Bytes> {
    if hyper::body::Body::is_end_stream(&incoming) {
        return Ok(Bytes::new());
    }
    let mut incoming = incoming;
    match Limited::new(&mut incoming, body::LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let _ = tokio::time::timeout(Duration::from_secs(5), discard(incoming)).await;
            Err(body::too_large())
        }
        Err(_) => Err(Status::bad_request("unexpected EOF")),
    }
}

/// Reads what a refused caller still sends, beside the answer: dropped unread, the body's end would reset an
/// HTTP/2 stream before its answer is read.
fn hear_out(incoming: Incoming) {
    if !hyper::body::Body::is_end_stream(&incoming) {
        tokio::spawn(tokio::time::timeout(Duration::from_secs(5), discard(incoming)));
    }
}

/// Reads what still comes and keeps none of it: a client reads no answer while it sends. One that sends
/// much more is cut off.
async fn discard(mut incoming: Incoming) {
    let mut left = 8 * body::LIMIT;
    while let Some(Ok(frame)) = incoming.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
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
