//! kube-proxy's health port (10256) and metrics port (10249): plain HTTP, as upstream's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use jiff::Timestamp;
use serde_json::json;

use super::ProxyError;
use super::config::Config;
use crate::net::bind;

/// When the rules last agreed with the API.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Option<Timestamp>>>);

impl Health {
    pub fn updated(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Timestamp::now());
    }

    fn report(&self) -> (StatusCode, String) {
        let updated = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let status = if updated.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let last = updated.map(|at| at.to_string()).unwrap_or_default();
        let now = Timestamp::now().to_string();
        (status, json!({"lastUpdated": last, "currentTime": now, "nodeEligible": true}).to_string())
    }
}

/// Serves both ports in the background.
pub async fn serve(config: &Config, health: Health) -> Result<(), ProxyError> {
    let report = move || {
        let health = health.clone();
        async move { health.report() }
    };
    let healthz = Router::new().route("/healthz", get(report.clone())).route("/livez", get(report));
    let metrics =
        Router::new().route("/healthz", get(async || "ok")).route("/proxyMode", get(async || "nftables"));
    for (address, routes) in [(config.healthz, healthz), (config.metrics, metrics)] {
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
