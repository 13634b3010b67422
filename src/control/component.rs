//! What kube-controller-manager and kube-scheduler have in common: an HTTPS port for health and
//! metrics, and an orderly end.
//!
//! Who may see more than health is asked from the API server (delegated authentication and
//! authorization), as upstream does. Without a certificate the port shows a throw-away one. `/configz` says what
//! the command line came to, in upstream's names for what there is; of `/debug/pprof/` there is what a process
//! without Go's runtime can tell, its command line. Left out: flagz and the profiles themselves.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{StatusCode, header};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::apiserver::serving::Files;
use super::trust::{TrustError, TrustOptions};
use crate::api::status::Status;
use crate::client::delegated::{Anonymous, Answer, Asked, Authentication, Authorization};
use crate::client::{self, ClientError};
use crate::net::{self, Identity, NetError, Peer, Protocols, Server, ServingCert};
use crate::pki::{self, PkiError};

/// Why the port does not open.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("read {path}")]
    ReadFile { path: PathBuf, source: std::io::Error },
    #[error("prepare the port's certificate")]
    Certificate(#[from] PkiError),
    #[error("use {path}")]
    Trust { path: PathBuf, source: TrustError },
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The part of the command line that is about the port.
#[derive(Debug, Clone, clap::Args)]
pub struct PortOptions {
    /// Kubeconfig for TokenReviews on the HTTPS port; without it only the always-allowed paths answer.
    #[arg(long, value_name = "PATH")]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Kubeconfig for SubjectAccessReviews on the HTTPS port.
    #[arg(long, value_name = "PATH")]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Paths on the HTTPS port that need no authorization.
    #[arg(long, value_delimiter = ',', default_value = "/healthz,/readyz,/livez")]
    pub authorization_always_allow_paths: Vec<String>,
    /// Serve /debug/pprof/.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, require_equals = true, action = clap::ArgAction::Set)]
    pub profiling: bool,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    #[arg(long, value_name = "PATH")]
    pub tls_cert_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub tls_private_key_file: Option<PathBuf>,
}

/// The port, checked and loaded but not open.
pub struct Port {
    address: SocketAddr,
    server: Server,
    door: Arc<Door>,
    trust: TrustOptions,
    /// Who says whom else to believe.
    cluster: Option<kube::Client>,
    /// The serving certificate and its files, if it comes from files.
    serving: (ServingCert, Option<Files>),
}

/// Says whether the role does its work: `/readyz`.
pub type Working = Arc<AtomicBool>;

struct Door {
    always: Vec<String>,
    authentication: Arc<Authentication>,
    authorization: Option<Authorization>,
    working: Working,
    profiling: bool,
    configz: Value,
}

impl PortOptions {
    /// Loads keys and authorities; opens nothing. `configz` is what the role says of its configuration.
    pub fn build(&self, port: u16, working: Working, configz: Value) -> Result<Port, ComponentError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| ComponentError::ReadFile { path: path.to_owned(), source })
        };
        let identity = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(cert), Some(key)) => Identity { cert_pem: read(cert)?, key_pem: read(key)? },
            _ => {
                let made = pki::self_signed_serving("localhost")?;
                Identity { cert_pem: made.cert_pem.into_bytes(), key_pem: made.key_pem.into_bytes() }
            }
        };
        let files = self.tls_cert_file.clone().zip(self.tls_private_key_file.clone());
        let cert = ServingCert::new(&identity)?;
        let reviews = self.authentication_kubeconfig.as_ref().map(client::from_kubeconfig).transpose()?;
        let asks = self.authorization_kubeconfig.as_ref().map(client::from_kubeconfig).transpose()?;
        let authentication = Arc::new(Authentication::new(None, reviews.clone(), Anonymous::Allowed));
        let used = |(path, source)| ComponentError::Trust { path, source };
        self.trust.apply(&authentication).map_err(used)?;
        Ok(Port {
            address: SocketAddr::new(self.bind_address, port),
            server: Server::new(cert.clone(), Protocols::H2AndH1, "secure")?,
            trust: self.trust.clone(),
            cluster: reviews,
            serving: (cert, files.map(|(cert, key)| Files { cert, key })),
            door: Arc::new(Door {
                always: self.authorization_always_allow_paths.clone(),
                authentication,
                authorization: asks.map(Authorization::new),
                working,
                profiling: self.profiling,
                configz,
            }),
        })
    }
}

impl Port {
    /// Serves until `stop` is cancelled.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), ComponentError> {
        let listener = net::bind(self.address).await?;
        let door = self.door;
        let mut beside = tokio::task::JoinSet::new();
        beside.spawn(self.trust.follow(door.authentication.clone(), self.cluster));
        if let (cert, Some(files)) = self.serving {
            beside.spawn(files.follow(cert));
        }
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let door = door.clone();
            async move { Ok::<_, Infallible>(door.answer(request).await) }
        });
        self.server.serve(listener, service, stop).await;
        Ok(())
    }
}

impl Door {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let path = request.uri().path().to_owned();
        if !self.is_open(&path)
            && let Err(refusal) = self.admit(&request, &path).await
        {
            return refuse(&refusal);
        }
        match path.as_str() {
            "/healthz" | "/livez" | "/healthz/ping" | "/livez/ping" => text(StatusCode::OK, "ok"),
            "/readyz" if self.working.load(Ordering::Relaxed) => text(StatusCode::OK, "ok"),
            "/readyz" => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "[-]informer-sync failed: reason withheld\nreadyz check failed\n",
            ),
            "/metrics" => text(StatusCode::OK, &metrics()),
            "/configz" => json(StatusCode::OK, &self.configz),
            "/debug/pprof" | "/debug/pprof/" if self.profiling => text(StatusCode::OK, PROFILES),
            "/debug/pprof/cmdline" if self.profiling => text(StatusCode::OK, &command_line()),
            "/version" => text(StatusCode::OK, "{}"),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn is_open(&self, path: &str) -> bool {
        self.always.iter().any(|open| match open.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == open,
        })
    }

    /// Who calls, and may they? The refusal is what they read.
    async fn admit(&self, request: &Request<Incoming>, path: &str) -> Result<(), Status> {
        let peer =
            request.extensions().get::<Peer>().map(|peer| peer.certificates.clone()).unwrap_or_default();
        let caller = self
            .authentication
            .authenticate(request.headers(), &peer)
            .await
            .ok_or_else(Status::unauthorized)?;
        let verb = request.method().as_str().to_ascii_lowercase();
        let denied = |reason: &str| {
            let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            let message = format!("forbidden: User {:?} cannot {verb} path {path:?}{tail}", caller.name);
            Status::new(403, "Forbidden", message).with_details(serde_json::json!({}))
        };
        let Some(authorization) = &self.authorization else { return Err(denied("")) };
        let asked = Asked::Path { verb: verb.clone(), path: path.to_owned() };
        match authorization.authorize(&caller, &asked).await {
            Answer::Allowed => Ok(()),
            Answer::Denied { reason } => Err(denied(&reason)),
            Answer::Failed { error } => Err(Status::internal(error)),
        }
    }
}

/// What `process_*` metrics say of this process.
fn metrics() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB").and_then(|text| text.trim().parse::<u64>().ok()));
    format!(
        "# HELP process_resident_memory_bytes Resident memory size in bytes.\n\
         # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {}\n",
        resident.unwrap_or(0) * 1024
    )
}

/// What there is below `/debug/pprof/`.
const PROFILES: &str = "/debug/pprof/\n\nprofiles:\ncmdline\n";

/// The words the process was started with, as Go's pprof puts them: a zero byte between two.
fn command_line() -> String {
    std::env::args().collect::<Vec<_>>().join("\0")
}

fn text(code: StatusCode, body: &str) -> Response {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = code;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn refuse(status: &Status) -> Response {
    json(StatusCode::from_u16(status.code).unwrap_or(StatusCode::FORBIDDEN), &status.to_json())
}

fn json(code: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Cancelled when the role is asked to stop (SIGTERM, or SIGINT from a terminal).
pub fn stop_signal() -> std::io::Result<CancellationToken> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        asked.cancel();
    });
    Ok(stop)
}
