//! The kubelet's own API: HTTPS on :10250, the old read-only port, healthz on loopback.
//!
//! `pkg/kubelet/server`. Left out for now: exec, attach, port-forward and run (404 after authorization).

mod access;
mod info;
mod logs;
mod system_logs;
mod tail;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::KubeletError;
use super::config::{AuthorizationMode, Config};
use super::pods::Pods;
use crate::client::delegated::{Authentication, Authorization};
use crate::net::{Protocols, Server, ServingCert, bind};
use crate::node::shim::Runtime;
use crate::pki::ClientRoots;

/// What handlers look at.
#[derive(Clone)]
pub struct Kubelet {
    pub config: Arc<Config>,
    pub pods: Pods,
    pub runtime: Runtime,
}

/// Upstream's debugging handlers: off together by `enableDebuggingHandlers: false` and on the read-only port.
const DEBUGGING: &[&str] = &[
    "/run/",
    "/exec/",
    "/attach/",
    "/portForward/",
    "/containerLogs/",
    "/runningpods/",
    "/logs/",
    "/debug/",
];

/// Listens on every address the configuration has, and serves for ever. Returns once all are bound.
pub async fn serve(
    me: Kubelet,
    client: Client,
    cert: ServingCert,
    stop: CancellationToken,
) -> Result<(), KubeletError> {
    let config = Arc::clone(&me.config);
    let router = secure(me.clone(), client)?;
    let listener = bind(config.listen).await?;
    info!(address = %config.listen, "Starting to listen");
    // Upgrades (exec and its kin) need HTTP/1.1; upstream's server speaks both.
    let server = Server::new(cert, Protocols::H2AndH1, "kubelet")?;
    tokio::spawn(server.serve(listener, router, stop));
    if let Some(address) = config.read_only {
        info!(%address, "Starting to listen read-only");
        plain(address, read_only(me)).await?;
    }
    if let Some(address) = config.healthz {
        plain(address, Router::new().route("/healthz", get(info::healthz))).await?;
    }
    Ok(())
}

async fn plain(address: SocketAddr, router: Router) -> Result<(), KubeletError> {
    let listener = bind(address).await?;
    // It ends with the process.
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// What both ports have.
fn common() -> Router<Kubelet> {
    Router::new()
        .route("/healthz", get(info::healthz))
        .route("/healthz/{check}", get(info::healthz))
        .route("/pods", get(info::pods))
        .route("/metrics", get(info::metrics))
}

fn secure(me: Kubelet, client: Client) -> Result<Router, KubeletError> {
    let config = &me.config;
    let roots = match &config.client_ca {
        None => None,
        Some(path) => {
            let bundle =
                std::fs::read(path).map_err(|source| KubeletError::Read { path: path.clone(), source })?;
            Some(ClientRoots::from_pem(&bundle)?)
        }
    };
    let reviews = config.webhook_authentication.then(|| client.clone());
    let door = access::Door {
        node: config.node_name.clone(),
        authentication: Authentication::new(roots, reviews, config.anonymous),
        authorization: (config.authorization == AuthorizationMode::Webhook)
            .then(|| Authorization::new(client)),
    };
    let mut router = common().route("/configz", get(info::configz));
    router = match config.debugging_handlers {
        true => router
            .route("/runningpods/", get(info::running_pods))
            .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
            .route("/logs/", get(system_logs::root))
            .route("/logs/{*path}", get(system_logs::file)),
        false => disabled(router),
    };
    Ok(router.fallback(not_found).layer(from_fn_with_state(Arc::new(door), access::check)).with_state(me))
}

/// The read-only port: no TLS, nobody is asked who they are.
///
/// # Warning
///
/// Every pod's specification is readable to whoever reaches the port (`readOnlyPort: 10255`).
fn read_only(me: Kubelet) -> Router {
    disabled(common()).fallback(not_found).with_state(me)
}

fn disabled(mut router: Router<Kubelet>) -> Router<Kubelet> {
    for prefix in DEBUGGING {
        router = router
            .route(prefix, any(debugging_disabled))
            .route(&format!("{prefix}{{*rest}}"), any(debugging_disabled));
    }
    router
}

async fn debugging_disabled() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n").into_response()
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}
