//! Health check node ports: load balancers ask each node whether it has pods of a service with
//! `externalTrafficPolicy: Local` (`pkg/proxy/healthcheck/service_health.go`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use tokio::task::AbortHandle;

use super::health::{Health, NOSNIFF};
use super::ruleset::HealthPort;
use crate::net::bind;

/// The ports that are open.
pub struct ServiceHealth {
    health: Health,
    open: BTreeMap<(String, String), Open>,
}

struct Open {
    port: u16,
    local: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServiceHealth {
    pub fn new(health: Health) -> Self {
        Self { health, open: BTreeMap::new() }
    }

    /// Opens and closes ports until these are open, and says there how many endpoints are here.
    pub async fn sync(&mut self, wanted: &BTreeMap<(String, String), HealthPort>) {
        self.open.retain(|name, open| wanted.get(name).is_some_and(|wanted| wanted.port == open.port));
        for (name, HealthPort { port, local }) in wanted {
            if let Some(open) = self.open.get(name) {
                open.local.store(*local, Ordering::Relaxed);
                continue;
            }
            let listener = match bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port))).await {
                Ok(listener) => listener,
                Err(error) => {
                    let service = format!("{}/{}", name.0, name.1);
                    tracing::error!(service, port, %error, "Failed to start healthcheck");
                    continue;
                }
            };
            let count = Arc::new(AtomicUsize::new(*local));
            let routes = routes(name.clone(), Arc::clone(&count), self.health.clone());
            let task = tokio::spawn(async move { axum::serve(listener, routes).await }).abort_handle();
            self.open.insert(name.clone(), Open { port: *port, local: count, task });
        }
    }
}

/// Whatever the path, as upstream.
fn routes(name: (String, String), local: Arc<AtomicUsize>, health: Health) -> Router {
    Router::new().fallback(async move || {
        let (count, healthy) = (local.load(Ordering::Relaxed), health.is_healthy());
        let status = if count > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let (namespace, name) = (&name.0, &name.1);
        let text = format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\
             \"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
        );
        (status, [(CONTENT_TYPE, "application/json"), (NOSNIFF, "nosniff")], text).into_response()
    })
}
