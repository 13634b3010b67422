//! konnectivity-agent: on a node, dials the server and then whatever the server asks for.
//!
//! Upstream's `cmd/agent` and `pkg/agent`. It needs nothing but the way to the server, so the tunnel can
//! always be born without itself. Left out: profiling, extra ALPN names.

mod connect;
mod counts;
mod endpoint;
mod flags;
mod leases;
mod node;
mod session;
mod sync;

use std::process::ExitCode;
use std::sync::Arc;

use http::StatusCode;
use tokio::signal::unix::{SignalKind, signal};

use connect::Road;
use counts::Counts;
pub(super) use flags::Flags;
use leases::Leases;
pub use leases::is_valid as lease_is_valid;
pub(super) use sync::Servers;

use super::TunnelError;
use super::health::{self, Answer};
use crate::client;

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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let servers = serve(&flags).await?;
        crate::sys::inherit::ready();
        tokio::spawn(Arc::clone(&servers).keep());
        tokio::spawn(super::settle());
        let mut told = async || {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        told().await;
        // Tunnels go on; the second signal, or the pod's end, is the last.
        servers.drain();
        told().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Opens the ports and gets ready to connect.
pub(super) async fn serve(flags: &Flags) -> Result<Arc<Servers>, TunnelError> {
    let counts: Arc<Counts> = Arc::default();
    let leases = match flags.count_server_leases {
        false => None,
        true => {
            let client = match flags.kubeconfig.as_os_str().is_empty() {
                true => client::in_cluster()?,
                false => client::from_kubeconfig(&flags.kubeconfig)?,
            };
            let (namespace, selector) = (&flags.lease_namespace, &flags.lease_label_selector);
            Some(Leases::follow(client, namespace, selector, Arc::clone(&counts)))
        }
    };
    let servers = Servers::new(Road::build(flags)?, flags, leases, counts);
    let own = Arc::clone(&servers);
    let respond = Arc::new(move |path: &str, query: &str| match path {
        "/healthz" => Some(Answer::ok()),
        "/readyz" | "/ready" => Some(readiness(own.connected() > 0, query)),
        "/metrics" => Some(Answer::text(StatusCode::OK, own.counts.page())),
        _ => None,
    });
    let at = health::address(&flags.health_server_host, flags.health_server_port)?;
    health::open(at, respond).await?;
    let port = flags.health_server_port;
    let moved = Arc::new(move |path: &str, _: &str| {
        (path == "/metrics").then(|| Answer::moved(format!("http://localhost:{port}/metrics")))
    });
    health::open(health::address(&flags.admin_bind_address, flags.admin_server_port)?, moved).await?;
    Ok(servers)
}

/// Upstream's readiness page: its checks are listed when one fails or when asked.
fn readiness(connected: bool, query: &str) -> Answer {
    match (connected, query.split('&').any(|word| word == "verbose" || word.starts_with("verbose="))) {
        (true, false) => Answer::ok(),
        (true, true) => {
            Answer::text(StatusCode::OK, "[+]ping ok\n[+]server-connected ok\nreadyz check passed\n")
        }
        (false, _) => Answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "[+]ping ok\n[-]server-connected failed: no servers connected\n",
        ),
    }
}
