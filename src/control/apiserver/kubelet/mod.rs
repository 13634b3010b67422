//! The API server's way to a kubelet (`pkg/kubelet/client`): which address, which certificate, whose word.
//!
//! Without `--kubelet-certificate-authority` the connection is TLS to anybody who answers, as upstream's
//! default is. Logs are here; exec, attach, port-forward and proxying (`proxy/`) use the same locations.

pub mod counts;
mod flags;
mod log;
mod log_options;
mod params;
mod summary;

use std::sync::Arc;

use serde_json::Value;

pub use flags::{KubeletError, KubeletFlags};
pub use params::Params;

use super::lookup::{object, text};
use super::registry::Resource;
use crate::api::status::{Result, Status};
use crate::control::store::Store;
use crate::net::{BoxStream, Dial, DialError, Records, TlsDialer};
use rustls::ClientConfig;
use tokio_rustls::client::TlsStream;

/// Where a kubelet is said to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    pub host: String,
    pub port: u16,
    /// What the node declares its kubelet can do (`status.declaredFeatures`).
    features: Vec<String>,
}

impl Location {
    pub fn declares(&self, feature: &str) -> bool {
        self.features.iter().any(|own| own == feature)
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// Reaches kubelets.
#[derive(Clone)]
pub struct KubeletClient {
    store: Store,
    /// The road to the nodes: direct, or through a tunnel.
    road: Arc<dyn Dial>,
    /// As the flags have it: verified if there is an authority.
    tls: Arc<ClientConfig>,
    /// What `insecureSkipTLSVerifyBackend` of a log request asks for.
    unverified: Arc<ClientConfig>,
    address_types: Vec<String>,
    /// For nodes that do not say (`--kubelet-port`).
    port: u16,
    pub counts: counts::Counts,
}

/// Whether a request insists on not being protected (`kubectl logs --insecure-skip-tls-verify-backend`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    AsConfigured,
    /// # Warning
    ///
    /// For this one request nobody checks who answers.
    Unverified,
}

impl KubeletClient {
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The address and port of a node's kubelet, by the first preferred type the node reports.
    pub fn locate(&self, node: &str) -> Result<Location> {
        let found =
            object(&self.store, "", "nodes", "", node).ok_or_else(|| Status::not_found("", "nodes", node))?;
        let none = Vec::new();
        let addresses = found["status"]["addresses"].as_array().unwrap_or(&none);
        let of_type = |wanted: &String| addresses.iter().find(|address| address["type"] == **wanted);
        let Some(address) = self.address_types.iter().find_map(of_type) else {
            let known =
                |address: &Value| format!("{{{} {}}}", text(address, "/type"), text(address, "/address"));
            let known: Vec<String> = addresses.iter().map(known).collect();
            let known = known.join(" ");
            return Err(failed(format!("no preferred addresses found; known addresses: [{known}]")));
        };
        let port = found.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let port =
            port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(self.port);
        let features = found["status"]["declaredFeatures"].as_array().into_iter().flatten();
        let features = features.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Location { host: text(address, "/address").into(), port, features })
    }

    /// A TLS connection to a kubelet, with the API server's client certificate.
    pub async fn connect(
        &self,
        to: &Location,
        backend: Backend,
    ) -> std::result::Result<Records<TlsStream<BoxStream>>, DialError> {
        let config = match backend {
            Backend::AsConfigured => &self.tls,
            Backend::Unverified => &self.unverified,
        };
        let dialer = TlsDialer { road: Arc::clone(&self.road), config: Arc::clone(config) };
        dialer.connect(&to.host, to.port, None).await.map(Records)
    }
}

/// Go's plain errors become a 500 without a reason, whose message is the error's.
pub fn failed(message: String) -> Status {
    Status::new(500, "", message)
}

/// The container asked for, or the only one (`validateContainer`).
pub fn container_of(pod: &Value, asked: &str) -> Result<String> {
    let names = |kind: &str| -> Vec<&str> {
        let containers = pod["spec"][kind].as_array().into_iter().flatten();
        containers.map(|container| text(container, "/name")).collect()
    };
    let name = text(pod, "/metadata/name");
    let (containers, inits) = (names("containers"), names("initContainers"));
    if !asked.is_empty() {
        let known = [&containers, &inits, &names("ephemeralContainers")]
            .into_iter()
            .flatten()
            .any(|own| *own == asked);
        return match known {
            true => Ok(asked.to_owned()),
            false => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        };
    }
    match containers.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        several => {
            let mut why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            if !inits.is_empty() {
                why += &format!(" or one of the init containers: [{}]", inits.join(" "));
            }
            Err(Status::bad_request(why))
        }
    }
}

/// The pod a request below `pods/NAME` is about.
pub fn pod_of(store: &Store, row: &Resource, namespace: &str, name: &str) -> Result<Value> {
    object(store, row.group, row.plural, namespace, name)
        .ok_or_else(|| Status::not_found(row.group, row.plural, name))
}

#[cfg(test)]
mod tests;
