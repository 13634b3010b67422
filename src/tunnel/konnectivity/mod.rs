//! Konnectivity (`sigs.k8s.io/apiserver-network-proxy`): agents on the nodes dial a server beside the API
//! server, and whatever the API server wants to reach is dialled by them.
//!
//! ```text
//! API server ──dial──▶ konnectivity-server ◀──one TLS stream an agent── konnectivity-agent ──TCP──▶ destination
//!   client/            server/                                          agent/
//! ```
//!
//! Every part speaks upstream's protocol (`packet`), so upstream's own can stand in its place. Between our own
//! ends each tunnel has credits (`flow`), which upstream's protocol lacks; that is agreed by one metadata key
//! and never sent to who did not agree.

pub mod agent;
mod client;
mod flow;
mod header;
mod health;
mod metrics;
pub mod packet;
pub mod rpc;
pub mod server;
#[cfg(test)]
mod tests;

pub use client::lay;

/// What can go wrong while a part is set up.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("read {path}")]
    Read { path: std::path::PathBuf, source: std::io::Error },
    #[error("{path} is no EgressSelectorConfiguration")]
    Parse { path: std::path::PathBuf, source: serde_yaml_ng::Error },
    #[error("invalid egress selector configuration: {0}")]
    Configuration(String),
    #[error("{0}")]
    Flags(String),
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    #[error("use the kubeconfig")]
    Client(#[from] crate::client::ClientError),
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, TunnelError> {
    std::fs::read(path).map_err(|source| TunnelError::Read { path: path.to_owned(), source })
}

/// A file's name as a flag has it; unlike clap's own reading it may be empty, which is none.
fn path(text: &str) -> Result<std::path::PathBuf, std::convert::Infallible> {
    Ok(text.into())
}

/// A number nobody guesses; never negative, as Go's `rand.Int63`.
fn random() -> i64 {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState hashes by fresh keys, which is randomness enough for an id.
    (RandomState::new().hash_one(0u8) >> 1).cast_signed()
}

/// How long after its start a role is taken for settled.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(2);

/// An idle role keeps no memory that only its start needed.
async fn settle() {
    tokio::time::sleep(SETTLED).await;
    crate::sys::process::settle();
}
