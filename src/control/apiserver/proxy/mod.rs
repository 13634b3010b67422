//! Passing requests on to kubelets, pods, services and nodes (`k8s.io/apimachinery/pkg/util/proxy`).
//!
//! `pods/exec|attach|portforward` end at a kubelet and are always upgrades; `*/proxy` takes any method,
//! plain or upgraded. Redirects are never followed. Left out: answers before the answer (`103 Early Hints`),
//! which the HTTP library takes and does not give.

pub mod aggregated;
mod backend;
mod commands;
mod first_line;
mod forward;
mod headers;
mod html;
mod links;
mod location;
pub mod museum;
mod page;
mod path;
mod splice;
mod streams;
#[cfg(test)]
mod tests;
mod translate;
mod upgrade;
mod websocket;

use std::sync::Arc;

use axum::response::Response;
use http::{Method, Uri};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use rustls::ClientConfig;

pub use backend::{Answer, Streamed, ask};

use super::authz::{Authorizer, Decision};
use super::call::Call;
use super::features::{Feature, Features};
use super::request::RequestInfo;
use super::respond;
use crate::api::status::{Result, Status};
use crate::net::{Dial, NetError, Peer, Protocols, Verify, client_config};
use commands::Commands;
use museum::MuseumFlags;

/// What a request that is passed on brings beside what was read of it.
pub struct Client {
    pub method: Method,
    /// Path and query as sent.
    pub uri: Uri,
    pub headers: http::HeaderMap,
    pub body: Incoming,
    /// The connection itself, if HTTP/1.1 lets go of it.
    pub upgrade: Option<OnUpgrade>,
    pub peer: Option<Peer>,
}

/// The roads to what is not a kubelet, and how streams are passed on.
pub struct Proxy {
    road: Arc<dyn Dial>,
    /// For the `https:` prefix.
    ///
    /// # Warning
    ///
    /// Whoever answers is believed, and no client certificate is offered (upstream's `CreateProxyTransport`).
    blind: Arc<ClientConfig>,
    pub features: Features,
    museum: MuseumFlags,
    pub commands: Commands,
}

impl Proxy {
    pub fn new(
        road: Arc<dyn Dial>,
        features: Features,
        museum: MuseumFlags,
    ) -> std::result::Result<Self, NetError> {
        let blind = client_config(&Verify::Unverified, None, Protocols::H1)?;
        Ok(Self { road, blind, features, museum, commands: Commands::default() })
    }
}

/// Whether a request is passed on instead of answered: its body and its connection are then not ours.
pub fn takes(info: &RequestInfo) -> bool {
    info.resource.as_ref().is_some_and(|asked| {
        asked.group.is_empty()
            && matches!(
                (asked.resource.as_str(), asked.subresource.as_str()),
                ("pods", "exec" | "attach" | "portforward" | "proxy") | ("services" | "nodes", "proxy")
            )
    })
}

/// Passes an authorized request on.
pub async fn answer(call: &Call, client: Client) -> Response {
    let asked = call.asked();
    if asked.version != "v1" {
        return respond::failure(&Status::no_such_path());
    }
    let outcome = match asked.subresource.as_str() {
        "proxy" => forward::answer(call, client).await,
        _ if !asked.rest.is_empty() => Err(Status::no_such_path()),
        _ => stream(call, client).await,
    };
    outcome.unwrap_or_else(|status| respond::failure(&status))
}

async fn stream(call: &Call, client: Client) -> Result<Response> {
    let api = &call.api;
    if !matches!(client.method, Method::GET | Method::POST) || call.asked().namespace.is_empty() {
        return Err(Status::method_not_allowed());
    }
    if api.proxy.features.enabled(Feature::AuthorizePodWebsocketUpgradeCreatePermission) {
        may_create(&api.door(call.listener).authorizer, call).await?;
    }
    let streams = streams::Streams {
        kubelets: &api.kubelets,
        features: &api.proxy.features,
        museum: api.proxy.museum.on(call.listener),
        commands: &api.proxy.commands,
    };
    streams.answer(call.asked(), &call.query, client).await
}

/// A stream asked for by GET needs the verb `create` as one asked for by POST does (kubernetes#133515).
async fn may_create(authorizer: &Authorizer, call: &Call) -> Result<()> {
    if call.info.verb == "create" {
        return Ok(());
    }
    let info = RequestInfo { verb: "create".into(), ..call.info.clone() };
    match authorizer.authorize(&call.user, &info).await {
        Decision::Allow { .. } => Ok(()),
        // Upstream gives the authorizer's reason alone here, which for RBAC is nothing; kubectl never
        // shows it, since it tries again by POST and shows that answer.
        Decision::Deny { reason } | Decision::NoOpinion { reason } => {
            Err(Status::forbidden("", "pods", &call.asked().name, &reason))
        }
        Decision::Failed { error, .. } => Err(Status::internal(error)),
    }
}

/// Whether a request may take as long as it likes (`longrunning` of the generic server).
pub fn is_long_running(info: &RequestInfo) -> bool {
    let log = info.resource.as_ref().is_some_and(|asked| asked.subresource == "log");
    info.verb == "watch" || log || takes(info)
}
