//! The kubelet's own API: HTTPS on :10250, the old read-only port, healthz on loopback.
//!
//! `pkg/kubelet/server`. A request is matched to a path, then its caller is asked who they are and whether
//! they may, then a service answers:
//!
//! ```text
//! Mux ── not registered ─► 404, nobody was asked
//!  └► Door ── 401, 403, 500
//!      └► Service ── 404, 405 of its own routes
//!          └► handler
//! ```
//! Left out: checkpoints, which the runtime cannot make, and profiles of a language this is not written in.

mod access;
mod attach;
mod call;
mod changes;
mod checkpoint;
mod debug;
mod exec;
mod health;
mod log_query;
mod logs;
mod metrics;
mod pods;
mod port_forward;
mod routes;
mod run;
pub(in crate::node) mod stats;
mod streaming;
mod system_logs;
mod tail;
mod zpages;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::KubeletError;
use super::config::{AuthorizationMode, Config};
use super::credentials::{Condition, on_change};
use super::machine::Machine;
use super::node::KUBELET_VERSION as VERSION;
use super::pods::Pods;
use crate::client::delegated::{Anonymous, Authentication, Authorization};
use crate::net::{Protocols, Server, ServingCert, bind};
use crate::node::shim::Runtime;
use crate::pki::ClientRoots;
use access::Door;
use call::Call;
use routes::{Found, Mux, Service};

/// What handlers look at.
#[derive(Clone)]
pub struct Kubelet(Arc<Parts>);

pub struct Parts {
    pub config: Arc<Config>,
    pub machine: Arc<Machine>,
    pub pods: Pods,
    pub runtime: Runtime,
    /// How the kubelet's certificates are.
    pub credentials: Condition,
    pub started: Timestamp,
    requests: metrics::Requests,
    streaming: streaming::Counts,
    sampler: stats::Sampler,
    verdicts: health::Verdicts,
    changes: changes::Changes,
}

impl std::ops::Deref for Kubelet {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Kubelet {
    pub fn new(
        config: Arc<Config>,
        machine: Arc<Machine>,
        pods: Pods,
        runtime: Runtime,
        credentials: Condition,
    ) -> Self {
        Self(Arc::new(Parts {
            config,
            machine,
            pods,
            runtime,
            credentials,
            started: Timestamp::now(),
            requests: metrics::Requests::default(),
            streaming: streaming::Counts::default(),
            sampler: stats::Sampler::default(),
            verdicts: health::Verdicts::default(),
            changes: changes::Changes::default(),
        }))
    }
}

/// One of the kubelet's listeners.
#[derive(Clone)]
struct Port {
    me: Kubelet,
    mux: Arc<Mux>,
    /// Nothing where nobody is asked who they are.
    door: Option<Arc<Door>>,
    /// As metrics call it.
    kind: &'static str,
}

/// Listens on every address the configuration has, and serves for ever. Returns once all are bound.
pub async fn serve(
    me: Kubelet,
    client: Client,
    cert: ServingCert,
    stop: CancellationToken,
) -> Result<(), KubeletError> {
    let config = Arc::clone(&me.config);
    if let Some(address) = config.healthz {
        plain(address, Mux::health(), &me, "healthz").await?;
    }
    if !config.server {
        return Ok(());
    }
    let door = Arc::new(door(&config, client)?);
    if config.gates.on("ReloadKubeletClientCAFile") {
        tokio::spawn(reload_authorities(Arc::clone(&config), Arc::clone(&door)));
    }
    let port =
        Port { me: me.clone(), mux: Arc::new(Mux::secure(&config)), door: Some(door), kind: "readwrite" };
    let listener = bind(config.listen).await?;
    info!(address = %config.listen, "Starting to listen");
    let server = Server::new(cert, Protocols::H2AndH1, "kubelet")?;
    tokio::spawn(server.serve(listener, port.router(), stop));
    if let Some(address) = config.read_only {
        info!(%address, "Starting to listen read-only");
        plain(address, Mux::read_only(), &me, "readonly").await?;
    }
    Ok(())
}

/// A port without TLS where nobody is asked who they are.
///
/// # Warning
///
/// On the read-only port every pod's specification is readable to whoever reaches it (`readOnlyPort: 10255`).
async fn plain(address: SocketAddr, mux: Mux, me: &Kubelet, kind: &'static str) -> Result<(), KubeletError> {
    let listener = bind(address).await?;
    let router = Port { me: me.clone(), mux: Arc::new(mux), door: None, kind }.router();
    // It ends with the process.
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Who may come in, by the configuration.
fn door(config: &Config, client: Client) -> Result<Door, KubeletError> {
    let roots = config.client_ca.as_deref().map(authorities).transpose()?;
    let nobody = roots.is_none() && !config.webhook_authentication;
    if nobody && config.anonymous == Anonymous::Refused {
        return Err(KubeletError::NoAuthentication);
    }
    let reviews = config.webhook_authentication.then(|| client.clone());
    let asks = config.authorization == AuthorizationMode::Webhook;
    Ok(Door {
        node: config.node_name.clone(),
        authentication: Authentication::new(roots, reviews, config.anonymous).believing(config.ttls),
        authorization: asks.then(|| Authorization::new(client).believing(config.ttls)),
    })
}

fn authorities(path: &std::path::Path) -> Result<ClientRoots, KubeletError> {
    let bundle =
        std::fs::read(path).map_err(|source| KubeletError::Read { path: path.to_owned(), source })?;
    Ok(ClientRoots::from_pem(&bundle)?)
}

/// Takes in another `clientCAFile` without a restart.
async fn reload_authorities(config: Arc<Config>, door: Arc<Door>) {
    let Some(path) = config.client_ca.clone() else { return };
    on_change(vec![path.clone()], || match authorities(&path) {
        Ok(roots) => {
            info!(path = %path.display(), "Client CA bundle was reloaded");
            door.authentication.replace_roots(roots);
        }
        Err(error) => error!(%error, path = %path.display(), "Client CA bundle cannot be reloaded"),
    })
    .await;
}

impl Port {
    fn router(self) -> Router {
        Router::new().fallback(answer).with_state(self)
    }
}

async fn answer(State(port): State<Port>, request: Request) -> Response {
    let underway = port.me.requests.begin(request.method(), request.uri().path(), port.kind);
    let (parts, body) = request.into_parts();
    let response = match Call::of(parts) {
        Some(call) => dispatch(&port, call, body).await,
        None => call::http_error(StatusCode::BAD_REQUEST, "400 Bad Request"),
    };
    drop(underway);
    response
}

async fn dispatch(port: &Port, call: Call, body: Body) -> Response {
    let service = match port.mux.find(&call.path) {
        Found::Nothing => return routes::not_found(),
        Found::Elsewhere(path) => return routes::moved(&path, call.parts.uri.query(), &call.parts.method),
        Found::Service(service) => service,
    };
    if let Some(door) = &port.door
        && let Err(refused) = door.check(&call.parts, &call.path).await
    {
        return refused;
    }
    let below = call.below(service.root());
    if let Some(refused) = service.refusal(&call.parts.method, &below) {
        return refused;
    }
    handle(port, service, call, body, &below).await
}

async fn handle(port: &Port, service: Service, call: Call, body: Body, below: &[String]) -> Response {
    let me = &port.me;
    match service {
        Service::Health(Some(check)) => health::one(me, check),
        Service::Health(None) if port.kind == "healthz" => health::all(me, &call, &["ping"]),
        Service::Health(None) => health::page(me, &call),
        Service::Metrics(family) => metrics::answer(me, family).await,
        Service::Pods => pods::desired(me),
        Service::RunningPods => pods::running(me),
        Service::Stats => stats::summary(me, &call).await,
        Service::ContainerLogs => logs::container_logs(me, &call, below).await,
        Service::Checkpoint => checkpoint::checkpoint(me, &call, below),
        Service::SystemLogs => system_logs::answer(me, &call).await,
        Service::Profiles => debug::profile(below),
        Service::Verbosity => debug::verbosity(&call, body).await,
        Service::Configz => zpages::configz(me),
        Service::Flagz => zpages::flagz(me),
        Service::Statusz => zpages::statusz(me, &port.mux),
        Service::Run => run::run(me, &call, body, below).await,
        Service::Exec => exec::exec(me, call, below).await,
        Service::Attach => attach::attach(me, call, below).await,
        Service::PortForward => port_forward::port_forward(me, call, below).await,
        Service::Off(why) => call::http_error(StatusCode::METHOD_NOT_ALLOWED, why),
    }
}
