//! Whom webhooks and aggregated API servers are: a URL, or a service of the cluster
//! (`apiserver/pkg/util/webhook/client.go`, `util/proxy/proxy.go`).
//!
//! A service is reached at one of its endpoints by the cluster's road, for the control plane's host has no service
//! rules; its certificate is checked for the service's name all the same.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::lookup::{self, text};
use super::remote::{Remote, RemoteError};
use crate::control::store::Store;
use crate::net::{Dial, DialError, Dialing, Egress, Roads, Verify};

/// The server a `clientConfig` names, which may take so many seconds.
///
/// # Errors
/// What is wrong with the configuration, as the client is told.
pub fn remote(store: &Store, roads: &Roads, config: &Value, seconds: u64) -> Result<Remote, String> {
    let bundle = BASE64_STANDARD
        .decode(config["caBundle"].as_str().unwrap_or_default())
        .map_err(|error| format!("unable to load root certificates: {error}"))?;
    let (url, road): (String, Arc<dyn Dial>) = match &config["service"] {
        service @ Value::Object(_) => {
            let (namespace, name) = (text(service, "/namespace"), text(service, "/name"));
            let port = service["port"].as_u64().unwrap_or(443);
            let path = text(service, "/path").trim_start_matches('/');
            let road = ServiceRoad::new(store, roads, namespace, name, port);
            (format!("https://{name}.{namespace}.svc:{port}/{path}?timeout={seconds}s"), Arc::new(road))
        }
        _ => {
            let url = text(config, "/url");
            let mark = if url.contains('?') { '&' } else { '?' };
            (format!("{url}{mark}timeout={seconds}s"), roads.to(Egress::ControlPlane))
        }
    };
    let verify = Verify::Bundle(bundle);
    Remote::new(&url, &verify, None, Duration::from_secs(seconds), road).map_err(|error| match error {
        RemoteError::Tls { source, .. } => format!("unable to load root certificates: {source}"),
        error => error.to_string(),
    })
}

/// The road to one port of one service, whatever it is called by.
pub struct ServiceRoad {
    store: Store,
    road: Arc<dyn Dial>,
    namespace: String,
    name: String,
    port: u64,
}

impl ServiceRoad {
    pub fn new(store: &Store, roads: &Roads, namespace: &str, name: &str, port: u64) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { store: store.clone(), road: roads.to(Egress::Cluster), namespace, name, port }
    }
}

impl Dial for ServiceRoad {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> Dialing<'a> {
        Box::pin(async move {
            let found = endpoint(&self.store, &self.namespace, &self.name, self.port);
            let (host, port) = found.map_err(DialError::Tunnel)?;
            self.road.dial(&host, port).await
        })
    }
}

/// An endpoint of a service's port.
pub fn endpoint(store: &Store, namespace: &str, name: &str, port: u64) -> Result<(String, u16), String> {
    let object = |plural: &str| lookup::object(store, "", plural, namespace, name);
    let service = object("services").ok_or_else(|| format!("service {name:?} not found"))?;
    if service["spec"]["type"] == "ExternalName" {
        let number = u16::try_from(port).map_err(|_| format!("{port} is no port"))?;
        return Ok((text(&service, "/spec/externalName").to_owned(), number));
    }
    let own = list(&service["spec"]["ports"]).iter().find(|own| own["port"].as_u64() == Some(port));
    let own = own.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let endpoints = object("endpoints").unwrap_or_default();
    for subset in list(&endpoints["subsets"]) {
        let found = list(&subset["ports"]).iter().find(|one| text(one, "/name") == text(own, "/name"));
        let number = found.and_then(|one| one["port"].as_u64()).and_then(|number| u16::try_from(number).ok());
        if let (Some(number), [first, ..]) = (number, list(&subset["addresses"])) {
            return Ok((text(first, "/ip").to_owned(), number));
        }
    }
    Err(format!("no endpoints available for service {name:?}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
