//! What every role that talks to the API server shares: a client from a kubeconfig, reconnection, events,
//! delegated authentication and authorization.
//!
//! client-go's place in upstream. The typed API is kube-rs'; the connection below it is ours, so that
//! silence is noticed within seconds and rotated credentials are picked up.

mod backoff;
mod connect;
pub mod delegated;
pub mod events;
mod front_proxy;
mod gather;
pub mod informer;
mod kubeconfig;
mod phone_home;

pub use backoff::Backoff;
pub use connect::{from_kubeconfig, from_parts, in_cluster, in_cluster_trusting};
pub use front_proxy::{FrontProxy, RemoteHeaders};
pub use gather::Collection;
pub use kubeconfig::{Access, Cluster, Kubeconfig, User};
pub use phone_home::run as phone_home;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("read kubeconfig {path}")]
    ReadKubeconfig { path: String, source: std::io::Error },
    #[error("parse kubeconfig {path}")]
    ParseKubeconfig { path: String, source: serde_yaml_ng::Error },
    #[error("kubeconfig {path}: {problem}")]
    Kubeconfig { path: String, problem: String },
    #[error("read {path}")]
    ReadFile { path: String, source: std::io::Error },
    #[error("{what} is not base64")]
    Base64 { what: &'static str },
    #[error("set up TLS to the API server")]
    Tls(#[from] crate::net::NetError),
    #[error(
        "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
    )]
    NotInCluster,
    #[error("{0:?} is not a server address")]
    Server(String),
}
