//! `kube-apiserver`'s command line: the flags kubeadm's manifest has and those this server acts on.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::Ipv4Net;

use super::addresses::PortRange;
use super::admission::AdmissionFlags;
use super::aggregate::AggregatorFlags;
use super::audit::AuditFlags;
use super::authn::AuthnFlags;
use super::authz::AuthzFlags;
use super::fairness::FairnessFlags;
use super::features::FeatureFlags;
use super::kubelet::KubeletFlags;
use super::masters::ReconcilerType;
use super::proxy::museum::MuseumFlags;
use crate::api::flags;
use crate::net::RoadSigns;

/// Real flags that are accepted and do nothing here, one warning each. A trailing `=` takes a value.
const UNIMPLEMENTED: &[&str] = &[
    "allow-privileged",
    "audit-webhook-batch-throttle-enable",
    "audit-webhook-version=",
    "cert-dir=",
    "contention-profiling",
    "default-watch-cache-size=",
    "delete-collection-workers=",
    "enable-aggregator-routing",
    "enable-garbage-collector",
    "encryption-provider-config=",
    "etcd-cafile=",
    "etcd-certfile=",
    "etcd-compaction-interval=",
    "etcd-keyfile=",
    "etcd-prefix=",
    "etcd-servers=",
    "event-ttl=",
    "external-hostname=",
    "goaway-chance=",
    "http2-max-streams-per-connection=",
    "min-request-timeout=",
    "permit-address-sharing",
    "permit-port-sharing",
    "profiling",
    "request-timeout=",
    "runtime-config=",
    "shutdown-delay-duration=",
    "storage-backend=",
    "storage-media-type=",
    "tls-cipher-suites=",
    "tls-min-version=",
    "v=",
    "vmodule=",
    "watch-cache",
    "watch-cache-sizes=",
];

/// The API server's flags.
#[derive(Debug, Parser)]
#[command(name = "kube-apiserver", about = "The Kubernetes API server", long_about = None, args_override_self = true)]
pub struct Flags {
    /// The address on which to listen.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// The address on which to advertise the API server to members of the cluster.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    #[arg(long)]
    pub tls_cert_file: PathBuf,
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// The range from which service addresses are assigned.
    #[arg(long, default_value = "10.0.0.0/24", value_parser = single_stack)]
    pub service_cluster_ip_range: Ipv4Net,
    /// Ports that services of type NodePort may have.
    #[arg(long, default_value = "30000-32767")]
    pub service_node_port_range: PortRange,
    /// How the endpoints of the `kubernetes` service are kept; `master-count` is deprecated.
    #[arg(long, value_enum, default_value = "lease")]
    pub endpoint_reconciler_type: ReconcilerType,
    /// Where connections to the cluster go through.
    #[arg(long)]
    pub egress_selector_config_file: Option<PathBuf>,
    /// Historical: the SSH proxy to the nodes, and its user's name. Deprecated in Kubernetes 1.10, removed in 1.22.
    #[arg(long, default_value = "")]
    pub ssh_user: String,
    /// Historical: that user's private key.
    #[arg(long)]
    pub ssh_keyfile: Option<PathBuf>,
    /// minilab's own, never upstream's: the nodes' host keys that are believed. Without it any is.
    #[arg(long)]
    pub minilab_ssh_known_hosts: Option<PathBuf>,
    /// minilab's own: where the embedded store is kept.
    #[arg(long, default_value = "/var/lib/minilab/store")]
    pub minilab_store_dir: PathBuf,
    #[command(flatten)]
    pub authn: AuthnFlags,
    #[command(flatten)]
    pub authz: AuthzFlags,
    #[command(flatten)]
    pub admission: AdmissionFlags,
    #[command(flatten)]
    pub aggregator: AggregatorFlags,
    #[command(flatten)]
    pub audit: AuditFlags,
    #[command(flatten)]
    pub fairness: FairnessFlags,
    #[command(flatten)]
    pub kubelet: KubeletFlags,
    #[command(flatten)]
    pub features: FeatureFlags,
    #[command(flatten)]
    pub museum: MuseumFlags,
}

/// The one family this server has addresses of.
fn single_stack(text: &str) -> Result<Ipv4Net, String> {
    match text.contains([',', ':']) {
        true => Err("minilab's clusters are single-stack IPv4: give one IPv4 range".into()),
        false => text.parse().map_err(|error| format!("{error}")),
    }
}

impl Flags {
    /// Reads the command line after argv\[0\].
    ///
    /// # Errors
    /// clap's, which also carries `--help`.
    pub fn read(argv: Vec<String>) -> Result<Self, clap::Error> {
        let (kept, dropped) = flags::sift(argv, UNIMPLEMENTED);
        for flag in dropped {
            tracing::warn!(flag, "this flag of the real component has no effect here");
        }
        let own = Self::try_parse_from(std::iter::once("kube-apiserver".to_owned()).chain(kept))?;
        if !own.ssh_user.is_empty() {
            tracing::warn!(
                "Flag --ssh-user has been deprecated, This flag will be removed in a future version."
            );
        }
        Ok(own)
    }

    /// What says how nodes are reached.
    pub fn road_signs(&self) -> RoadSigns {
        RoadSigns {
            egress: self.egress_selector_config_file.clone(),
            ssh_user: self.ssh_user.clone(),
            ssh_keyfile: self.ssh_keyfile.clone().unwrap_or_default(),
            ssh_known_hosts: self.minilab_ssh_known_hosts.clone(),
        }
    }
}
