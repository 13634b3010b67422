//! konnectivity-server: stands beside the API server, keeps the agents' streams and sends dials into them.
//!
//! Upstream's `cmd/server` and `pkg/server`. Left out: profiling, and reading its certificates again.

mod agents;
mod authority;
mod backend;
mod backends;
mod connect;
mod counts;
mod flags;
mod grpc;
mod identifiers;
mod leases;
mod token;
mod tunnel;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use agents::Door;
use authority::Named;
use backend::{Backend, DialFailure};
use backends::Backends;
use counts::Counts;
pub(super) use flags::Flags;
pub use flags::KLOG;
use flags::Mode;
use identifiers::Strategy;
use token::Tokens;
use tunnel::Tunnel;

use super::health::{self, Answer};
use super::packet::DialRequest;
use super::{TunnelError, random, read, rpc};
use crate::net::{self, Clients, Identity, Protocols, ServingCert};

/// What every frontend and agent of a server shares.
pub struct Shared {
    backends: Backends,
    counts: Arc<Counts>,
    strategies: Vec<Strategy>,
    server_id: String,
    server_count: usize,
    dial_timeout: Option<Duration>,
}

impl Shared {
    fn choose(&self, address: &str) -> Option<Arc<Backend>> {
        self.backends.choose(&self.strategies, address)
    }

    async fn dial(&self, backend: &Arc<Backend>, request: DialRequest) -> Result<Arc<Tunnel>, DialFailure> {
        let begun = Instant::now();
        let dialling = backend.dial(request);
        let outcome = match self.dial_timeout {
            None => dialling.await,
            Some(limit) => tokio::time::timeout(limit, dialling).await.unwrap_or_else(|_| {
                self.counts.dial_failure("backend_dial_timeout");
                Err(DialFailure::Refused("backend dial timeout".into()))
            }),
        };
        if outcome.is_ok() {
            self.counts.dials.observe(begun.elapsed());
        }
        outcome
    }

    /// Of the first strategy only, as upstream.
    fn is_ready(&self) -> bool {
        self.strategies.first().is_some_and(|strategy| self.backends.count(*strategy) > 0)
    }
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let flags = match Flags::read(argv) {
        Ok(flags) => flags,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    flags.check()?;
    // One thread, as the agent: a dial passes through several tasks, and each hand-over to another thread would
    // cost it more than the two directions gain by running beside each other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = CancellationToken::new();
        let Serving { shared, .. } = serve(&flags, &stop).await?;
        crate::sys::inherit::ready();
        tokio::spawn(super::settle());
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let deadline = tokio::time::Instant::now() + flags.graceful_shutdown_timeout;
        while shared.counts.established.get() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stop.cancel();
        if flags.enable_lease_controller {
            leases::release(&flags, &shared.server_id).await;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A server whose ports are open.
pub(super) struct Serving {
    pub shared: Arc<Shared>,
    /// Where agents come.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests let the kernel pick the port"))]
    pub agents: SocketAddr,
}

/// Opens every port; they are served until `stop` is cancelled.
pub(super) async fn serve(flags: &Flags, stop: &CancellationToken) -> Result<Serving, TunnelError> {
    let server_id = match flags.server_id.as_str() {
        "" => uuid::Uuid::new_v4().to_string(),
        id => id.to_owned(),
    };
    let shared = Arc::new(Shared {
        backends: Backends::default(),
        counts: Arc::default(),
        strategies: flags.proxy_strategies.clone(),
        server_id,
        server_count: flags.server_count,
        dial_timeout: Some(flags.backend_dial_timeout).filter(|limit| !limit.is_zero()),
    });
    frontends(flags, &shared, stop).await?;
    let agents = agents(flags, &shared, stop).await?;
    ports(flags, &shared).await?;
    if flags.enable_lease_controller {
        tokio::spawn(leases::keep(leases::client(flags)?, leases::Own::of(flags, &shared.server_id)?));
    }
    Ok(Serving { shared, agents })
}

async fn agents(
    flags: &Flags,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) -> Result<SocketAddr, TunnelError> {
    let identity = Identity { cert_pem: read(&flags.cluster_cert)?, key_pem: read(&flags.cluster_key)? };
    let clients = match flags.cluster_ca_cert.as_os_str().is_empty() {
        true => Clients::Anonymous,
        false => Clients::Verified(read(&flags.cluster_ca_cert)?),
    };
    let tokens = match flags.by_token() {
        false => None,
        true => Some(Tokens {
            client: leases::client(flags)?,
            namespace: flags.agent_namespace.clone(),
            account: flags.agent_service_account.clone(),
            audience: flags.authentication_audience.clone(),
        }),
    };
    let door = Door {
        shared: Arc::clone(shared),
        tls: ServingCert::new(&identity)?.server_config_for(Protocols::H2, &clients)?,
        tokens,
        keepalive: flags.keepalive_time,
        stop: stop.clone(),
    };
    let listener = net::bind(health::address(&flags.agent_bind_address, flags.agent_port)?).await?;
    let at = listener
        .local_addr()
        .map_err(|source| net::NetError::Bind { address: flags.agent_bind_address.clone(), source })?;
    tokio::spawn(Arc::new(door).serve(listener));
    Ok(at)
}

/// What speaks on one frontend connection.
async fn frontend<S>(shared: Arc<Shared>, mode: Mode, keepalive: Duration, io: S, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match mode {
        Mode::Grpc => {
            let handler = move |request| grpc::proxy(Arc::clone(&shared), request);
            rpc::serve(io, rpc::PROXY, keepalive, stop, handler).await;
        }
        Mode::HttpConnect => connect::serve(shared, io).await,
    }
}

async fn frontends(flags: &Flags, shared: &Arc<Shared>, stop: &CancellationToken) -> Result<(), TunnelError> {
    let (mode, keepalive) = (flags.mode, flags.frontend_keepalive_time);
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    if !flags.uds_name.as_os_str().is_empty() {
        let listener = net::bind_unix(&flags.uds_name, flags.delete_existing_uds_file)?;
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((io, _)) => {
                        let (shared, stop) = (Arc::clone(&shared), stop.clone());
                        tokio::spawn(async move {
                            match mode {
                                Mode::Grpc => frontend(shared, mode, keepalive, Named::new(io), stop).await,
                                Mode::HttpConnect => frontend(shared, mode, keepalive, io, stop).await,
                            }
                        });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        return Ok(());
    }
    let identity = Identity { cert_pem: read(&flags.server_cert)?, key_pem: read(&flags.server_key)? };
    let clients = Clients::Verified(read(&flags.server_ca_cert)?);
    let protocols = if mode == Mode::Grpc { Protocols::H2 } else { Protocols::H1 };
    let tls = TlsAcceptor::from(ServingCert::new(&identity)?.server_config_for(protocols, &clients)?);
    let listener = net::bind(health::address(&flags.server_bind_address, flags.server_port)?).await?;
    tokio::spawn(async move {
        loop {
            let Ok((io, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            net::tune(&io);
            let (shared, tls, stop) = (Arc::clone(&shared), tls.clone(), stop.clone());
            tokio::spawn(async move {
                let shaken = tokio::time::timeout(Duration::from_secs(10), tls.accept(io)).await;
                if let Ok(Ok(io)) = shaken {
                    frontend(shared, mode, keepalive, io, stop).await;
                }
            });
        }
    });
    Ok(())
}

/// Health and admin.
async fn ports(flags: &Flags, shared: &Arc<Shared>) -> Result<(), TunnelError> {
    let own = Arc::clone(shared);
    let health = Arc::new(move |path: &str, _: &str| match path {
        "/healthz" => Some(Answer::ok()),
        "/readyz" | "/ready" if own.is_ready() => Some(Answer::ok()),
        "/readyz" | "/ready" => {
            Some(Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "no connection to any proxy agent"))
        }
        "/metrics" => Some(Answer::text(StatusCode::OK, own.metrics())),
        _ => None,
    });
    let own = Arc::clone(shared);
    let admin = Arc::new(move |path: &str, _: &str| {
        (path == "/metrics").then(|| Answer::text(StatusCode::OK, own.metrics()))
    });
    health::open(health::address(&flags.health_bind_address, flags.health_port)?, health).await?;
    health::open(health::address(&flags.admin_bind_address, flags.admin_port)?, admin).await
}
