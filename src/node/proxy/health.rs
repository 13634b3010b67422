//! kube-proxy's health port (10256) and metrics port (10249): plain HTTP, as upstream's
//! (`pkg/proxy/healthcheck/proxy_health.go`).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::ProxyError;
use super::config::Config;
use super::metrics::Metrics;
use crate::net::bind;

/// A change that the kernel has not taken for this long is one too many: twice upstream's sync period.
const PATIENCE: Duration = Duration::from_secs(60);
/// Load balancers are to leave a node that has it.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// How the rules stand to the API.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Standing>>);

#[derive(Default)]
struct Standing {
    /// When they last agreed.
    updated: Option<Timestamp>,
    /// Since when a change waits.
    pending: Option<Timestamp>,
    leaving: bool,
}

impl Health {
    fn with<T>(&self, look: impl FnOnce(&mut Standing) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// There is something to write.
    pub fn queued(&self) {
        self.with(|standing| {
            standing.pending.get_or_insert_with(Timestamp::now);
        });
    }

    /// All of it is written.
    pub fn updated(&self) {
        self.with(|standing| (standing.updated, standing.pending) = (Some(Timestamp::now()), None));
    }

    /// What the Node object says of its future.
    pub fn node(&self, node: Option<&Node>) {
        let leaving = node.is_some_and(|node| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            node.metadata.deletion_timestamp.is_some() || taints.into_iter().any(|taint| taint.key == LEAVING)
        });
        self.with(|standing| standing.leaving = leaving);
    }

    pub fn is_healthy(&self) -> bool {
        self.with(|standing| standing.is_healthy(Timestamp::now()))
    }

    fn report(&self, metrics: &Metrics, liveness: bool) -> impl IntoResponse + use<> {
        let now = Timestamp::now();
        let (healthy, updated, eligible) = self.with(|standing| {
            (standing.is_healthy(now), standing.updated.unwrap_or(Timestamp::UNIX_EPOCH), !standing.leaving)
        });
        let status = match healthy && (liveness || eligible) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        metrics.probed(if liveness { "livez" } else { "healthz" }, status);
        let (last, now) = (go_time(updated), go_time(now));
        let eligible = if liveness { String::new() } else { format!(", \"nodeEligible\": {eligible}") };
        let text = format!("{{\"lastUpdated\": \"{last}\",\"currentTime\": \"{now}\"{eligible}}}");
        (status, [(CONTENT_TYPE, "application/json"), (NOSNIFF, "nosniff")], text)
    }
}

pub const NOSNIFF: axum::http::HeaderName = axum::http::header::X_CONTENT_TYPE_OPTIONS;

impl Standing {
    fn is_healthy(&self, now: Timestamp) -> bool {
        let waited = |since: Timestamp| since.duration_until(now).unsigned_abs() >= PATIENCE;
        self.updated.is_some() && !self.pending.is_some_and(waited)
    }
}

/// A time as Go prints it.
fn go_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()
}

/// Serves both ports in the background.
pub async fn serve(config: &Config, health: Health, metrics: Metrics) -> Result<(), ProxyError> {
    let (live, ready) = ((health.clone(), metrics.clone()), (health, metrics.clone()));
    let healthz = Router::new()
        .route("/healthz", get(async move || ready.0.report(&ready.1, false)))
        .route("/livez", get(async move || live.0.report(&live.1, true)));
    let told = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/proxyMode", get(async || "nftables"))
        .route("/metrics", get(async move || metrics.page()));
    for (address, routes) in [(config.healthz, healthz), (config.metrics, told)] {
        if let Some(address) = address {
            spawn(address, routes).await?;
        }
    }
    Ok(())
}

async fn spawn(address: SocketAddr, routes: Router) -> Result<(), ProxyError> {
    let listener = bind(address).await?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        let ago = |seconds| now - jiff::SignedDuration::from_secs(seconds);
        let standing = |updated, pending| Standing { updated, pending, leaving: false };
        assert!(!standing(None, None).is_healthy(now), "nothing was ever written");
        assert!(standing(Some(ago(100)), None).is_healthy(now));
        assert!(standing(Some(ago(100)), Some(ago(59))).is_healthy(now));
        assert!(!standing(Some(ago(100)), Some(ago(60))).is_healthy(now));
        assert_eq!(go_time(now), "2026-01-01 00:02:00 +0000 UTC");
    }
}
