//! What exec, attach and port-forward have in common: their parameters, the container they mean, the upgrade.
//!
//! Upstream's kubelet passes the upgraded connection on to the runtime's streaming server; here that server
//! is the kubelet itself, so its refusals are kept in the order of both.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use super::call::{Call, http_error, text};
use crate::node::shim::{ContainerPhase, ContainerStatus};
use crate::stream::remotecommand::Options;
use crate::stream::{Refusal, is_upgrade, is_websocket};

/// The protocol that came with `ExtendWebSocketsToKubelet`.
const V5: &str = "v5.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+";

/// A running container.
pub struct Target {
    pub sandbox: String,
    pub container: String,
}

/// How many streams came by WebSocket, by subresource.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    /// Counts a request of the kinds the feature gate brought.
    pub fn note(&self, kind: &'static str, parts: &Parts) {
        if offers_new(parts) {
            *self.0.lock().expect("nothing panics while holding the lock").entry(kind).or_default() += 1;
        }
    }

    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let all = self.0.lock().expect("nothing panics while holding the lock");
        all.iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}

/// Which streams are asked for. The refusal is go-restful's here, which ends in no newline.
pub fn options(call: &Call) -> Result<Options, Response> {
    Options::from_query(call.parts.uri.query().unwrap_or_default())
        .map_err(|refusal| text(refusal.status, refusal.body.trim_end()))
}

/// A pod by its name.
pub fn pod(me: &Kubelet, namespace: &str, name: &str) -> Result<Pod, Response> {
    let found = me.pods.find_with_status(namespace, name);
    found.ok_or_else(|| text(StatusCode::NOT_FOUND, "pod does not exist"))
}

/// The running container that `NAMESPACE/POD[/UID]/CONTAINER` names. The uid is not looked at: upstream finds
/// the pod by its full name alone.
pub fn target(me: &Kubelet, below: &[String]) -> Result<Target, Response> {
    let (namespace, name, container) = match below {
        [namespace, name, container] | [namespace, name, _, container] => (namespace, name, container),
        _ => return Err(text(StatusCode::NOT_FOUND, "404: Page Not Found")),
    };
    let pod = pod(me, namespace, name)?;
    running(me, &pod, container).ok_or_else(|| {
        let body = format!("container not found ({container:?})");
        text(StatusCode::INTERNAL_SERVER_ERROR, body)
    })
}

/// A pod's container of this name, if it runs.
pub fn running(me: &Kubelet, pod: &Pod, container: &str) -> Option<Target> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let running = |one: &&ContainerStatus| one.name == container && one.phase == ContainerPhase::Running;
    let sandboxes = me.runtime.of_pod(&uid);
    sandboxes.iter().rev().find_map(|sandbox| {
        let status = sandbox.containers.iter().filter(running).max_by_key(|one| one.attempt)?;
        Some(Target { sandbox: sandbox.id.clone(), container: status.id.clone() })
    })
}

/// Leaves HTTP: answers 101 and hands the connection to `serve`.
pub fn upgrade<N, S, F>(me: &Kubelet, mut call: Call, negotiate: N, serve: S) -> Response
where
    N: FnOnce(&Parts) -> Result<(Response<()>, F), Refusal>,
    S: FnOnce(TokioIo<Upgraded>, F) -> Task + Send + 'static,
    F: Send + 'static,
{
    if !is_upgrade(&call.parts.headers) {
        // The API server says the same with 400; the kubelet's responder knows one status.
        return http_error(StatusCode::INTERNAL_SERVER_ERROR, "Upgrade request required");
    }
    if let Err(refused) = only_if_extended(me, &mut call.parts) {
        return refused;
    }
    let (response, chosen) = match negotiate(&call.parts) {
        Ok(chosen) => chosen,
        Err(refusal) => return refusal.response(),
    };
    let Some(upgrade) = call.parts.extensions.remove::<OnUpgrade>() else {
        return http_error(StatusCode::INTERNAL_SERVER_ERROR, "Upgrade request required");
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => serve(TokioIo::new(upgraded), chosen).0.await,
            Err(error) => tracing::debug!(%error, "the connection was gone before it was upgraded"),
        }
    });
    response.map(|()| Body::empty())
}

/// What serves an upgraded connection.
pub struct Task(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);

impl Task {
    pub fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(work))
    }
}

fn offered(parts: &Parts) -> Vec<String> {
    let lines = parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let words = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    words.map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

fn is_new(protocol: &str) -> bool {
    protocol == V5 || protocol.starts_with(TUNNEL)
}

fn offers_new(parts: &Parts) -> bool {
    is_websocket(&parts.headers) && offered(parts).iter().any(|protocol| is_new(protocol))
}

/// With the feature gate closed the newer protocols are unknown: the runtime's streaming server refuses them.
fn only_if_extended(me: &Kubelet, parts: &mut Parts) -> Result<(), Response> {
    if me.config.gates.on("ExtendWebSocketsToKubelet") || !offers_new(parts) {
        return Ok(());
    }
    let mut older = offered(parts);
    older.retain(|protocol| !is_new(protocol));
    match HeaderValue::from_str(&older.join(", ")) {
        Ok(value) if !older.is_empty() => {
            parts.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
            Ok(())
        }
        _ => Err(text(StatusCode::FORBIDDEN, "")),
    }
}
