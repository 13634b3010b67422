//! The API server's flags about kubelets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::KubeletClient;
use crate::api::go_duration;
use crate::control::store::Store;
use crate::net::{Dial, Identity, NetError, Protocols, Verify, client_config};

#[derive(Debug, Clone, clap::Args)]
pub struct KubeletFlags {
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// For nodes that do not say which port their kubelet has (deprecated upstream).
    #[arg(long, default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Read and kept as upstream does, whose transports to kubelets do not ask it: dialling ends after Go's
    /// 30 seconds, a handshake after 10, and a stream when it ends.
    #[arg(long, default_value = "5s", value_parser = go_duration::parse)]
    pub kubelet_timeout: Duration,
}

/// Why kubelets cannot be reached with these flags.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error("read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("set up TLS to kubelets")]
    Tls(#[from] NetError),
}

impl KubeletFlags {
    /// Reads the certificates; `road` is how nodes are reached.
    pub fn build(&self, store: Store, road: Arc<dyn Dial>) -> Result<KubeletClient, KubeletError> {
        let identity = match (&self.kubelet_client_certificate, &self.kubelet_client_key) {
            (Some(cert), Some(key)) => Some(Identity { cert_pem: read(cert)?, key_pem: read(key)? }),
            _ => None,
        };
        let verify = match &self.kubelet_certificate_authority {
            Some(path) => Verify::Bundle(read(path)?),
            None => Verify::Unverified,
        };
        tracing::debug!(kubelet_timeout = ?self.kubelet_timeout, "kept as upstream keeps it");
        Ok(KubeletClient {
            store,
            road,
            tls: client_config(&verify, identity.as_ref(), Protocols::H1)?,
            unverified: client_config(&Verify::Unverified, identity.as_ref(), Protocols::H1)?,
            address_types: self.kubelet_preferred_address_types.clone(),
            port: self.kubelet_port,
            counts: Default::default(),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KubeletError> {
    std::fs::read(path).map_err(|source| KubeletError::Read { path: path.display().to_string(), source })
}
