//! SSH tunnels, as the API server had them until Kubernetes 1.22 (`pkg/ssh`, `pkg/master/tunneler`): it logs in
//! to every node with one key, and what it dials is dialled by that node's sshd.
//!
//! ```text
//! API server ──TCP to node:22, one connection a node──▶ sshd ──TCP──▶ kubelet, pods, services
//! ```
//!
//! Kept for what it teaches: the control plane dials the nodes, holds a key to all of them, and never asked
//! whether a node is the one it thinks. Left out: making the key and pushing it to the nodes, which was the
//! cloud provider's; RSA keys, whose library has a known leak by timing.

mod channel;
mod client;
mod known;
pub mod sshd;
#[cfg(test)]
mod tests;
mod tunnel;

pub use client::{Login, road};

/// What can go wrong while the tunnels are set up.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    #[error("error reading SSH key {path}")]
    Key { path: std::path::PathBuf, source: russh::keys::Error },
    #[error("read {path}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("{path}: line {line}: {why}")]
    Config { path: std::path::PathBuf, line: usize, why: String },
    #[error("set up TLS for health checks")]
    Net(#[from] crate::net::NetError),
}
