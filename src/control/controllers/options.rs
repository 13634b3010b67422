//! kube-controller-manager's command line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::ControllersError;
use crate::api::go_duration;
use crate::control::component::PortOptions;
use crate::control::leader::LeaderOptions;
use crate::pki::Authority;

/// Flags upstream has and this role does not act on; a trailing `=` marks one with a value.
pub const UNIMPLEMENTED: &[&str] = &[
    "allow-untagged-cloud",
    "attach-detach-reconcile-sync-period=",
    "cidr-allocator-type=",
    "cloud-config=",
    "cloud-provider=",
    "cluster-name=",
    "concurrent-deployment-syncs=",
    "concurrent-endpoint-syncs=",
    "concurrent-gc-syncs=",
    "concurrent-namespace-syncs=",
    "concurrent-replicaset-syncs=",
    "concurrent-service-endpoint-syncs=",
    "concurrent-serviceaccount-token-syncs=",
    "contention-profiling",
    "enable-garbage-collector",
    "feature-gates=",
    "flex-volume-plugin-dir=",
    "horizontal-pod-autoscaler-sync-period=",
    "kube-api-burst=",
    "kube-api-content-type=",
    "kube-api-qps=",
    "large-cluster-size-threshold=",
    "log-flush-frequency=",
    "logging-format=",
    "min-resync-period=",
    "node-eviction-rate=",
    "node-startup-grace-period=",
    "secondary-node-eviction-rate=",
    "service-cluster-ip-range=",
    "tls-cipher-suites=",
    "tls-min-version=",
    "unhealthy-zone-threshold=",
    "v=",
    "vmodule=",
];

#[derive(Debug, Clone, Parser)]
#[command(
    name = "kube-controller-manager",
    about = "The control loops of a cluster",
    disable_version_flag = true,
    args_override_self = true
)]
pub struct Options {
    /// Path to kubeconfig file with authorization and master location information.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: PathBuf,
    #[command(flatten)]
    pub port: PortOptions,
    #[command(flatten)]
    pub leader: LeaderOptions,
    /// 0 = no HTTPS port.
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,
    /// `*`, names, and `-name` for those to leave out.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<Ipv4Net>,
    #[arg(long, default_value_t = 24)]
    pub node_cidr_mask_size: u8,
    #[arg(long, value_name = "BITS")]
    pub node_cidr_mask_size_ipv4: Option<u8>,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true, action = clap::ArgAction::Set)]
    pub allocate_node_cidrs: bool,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, require_equals = true, action = clap::ArgAction::Set)]
    pub configure_cloud_routes: bool,
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = false, require_equals = true, action = clap::ArgAction::Set)]
    pub use_service_account_credentials: bool,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub signers: SignerFiles,
    #[arg(long, default_value = "8760h0m0s", value_parser = go_duration::parse)]
    pub cluster_signing_duration: Duration,
    /// Signs the tokens kept in Secrets.
    #[arg(long, value_name = "PATH")]
    pub service_account_private_key_file: Option<PathBuf>,
    /// Published as `kube-root-ca.crt` in every namespace.
    /// How long an unused legacy token stays, and then as long again marked.
    #[arg(long, default_value = "8760h0m0s", value_parser = go_duration::parse)]
    pub legacy_service_account_token_clean_up_period: Duration,
    #[arg(long, value_name = "PATH")]
    pub root_ca_file: Option<PathBuf>,
    #[arg(long, default_value = "5s", value_parser = go_duration::parse)]
    pub node_monitor_period: Duration,
    #[arg(long, default_value = "50s", value_parser = go_duration::parse)]
    pub node_monitor_grace_period: Duration,
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: usize,
}

/// An authority of its own for each signer; upstream lets nobody mix these with the one for all.
#[derive(Debug, Clone, clap::Args)]
pub struct SignerFiles {
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    pub cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
}

impl SignerFiles {
    /// Certificate and key files by signer.
    fn all(&self) -> [(&'static str, &Option<PathBuf>, &Option<PathBuf>); 4] {
        [
            (
                "kubernetes.io/kubelet-serving",
                &self.cluster_signing_kubelet_serving_cert_file,
                &self.cluster_signing_kubelet_serving_key_file,
            ),
            (
                "kubernetes.io/kube-apiserver-client-kubelet",
                &self.cluster_signing_kubelet_client_cert_file,
                &self.cluster_signing_kubelet_client_key_file,
            ),
            (
                "kubernetes.io/kube-apiserver-client",
                &self.cluster_signing_kube_apiserver_client_cert_file,
                &self.cluster_signing_kube_apiserver_client_key_file,
            ),
            (
                "kubernetes.io/legacy-unknown",
                &self.cluster_signing_legacy_unknown_cert_file,
                &self.cluster_signing_legacy_unknown_key_file,
            ),
        ]
    }
}

impl Options {
    /// What `/configz` says: a KubeControllerManagerConfiguration by upstream's names (`cmd/kube-controller-manager`).
    pub fn configz(&self) -> Value {
        json!({"kubecontrollermanager.config.k8s.io": {
            "Generic": {
                "Port": self.secure_port,
                "Address": self.port.bind_address,
                "ClientConnection": {"Kubeconfig": self.kubeconfig},
                "LeaderElection": {"LeaderElect": self.leader.leader_elect, "ResourceName": "kube-controller-manager"},
                "Controllers": self.controllers,
                "Debugging": {"EnableProfiling": self.port.profiling},
            },
            "KubeCloudShared": {
                "UseServiceAccountCredentials": self.use_service_account_credentials,
                "AllocateNodeCIDRs": self.allocate_node_cidrs,
                "ClusterCIDR": self.cluster_cidr,
                "ConfigureCloudRoutes": self.configure_cloud_routes,
            },
            "CSRSigningController": {
                "ClusterSigningCertFile": self.cluster_signing_cert_file,
                "ClusterSigningKeyFile": self.cluster_signing_key_file,
            },
            "SAController": {
                "ServiceAccountKeyFile": self.service_account_private_key_file,
                "RootCAFile": self.root_ca_file,
            },
        }})
    }

    /// The authority of each signer that has one: one for all, or each its own.
    pub fn signing_authorities(&self) -> Result<BTreeMap<&'static str, Rc<Authority>>, ControllersError> {
        let own = self.signers.all();
        let separate = own.iter().any(|(_, cert, key)| cert.is_some() || key.is_some());
        let shared =
            self.authority(&self.cluster_signing_cert_file, &self.cluster_signing_key_file)?.map(Rc::new);
        if separate && shared.is_some() {
            return Err(ControllersError::SigningFiles);
        }
        let mut all = BTreeMap::new();
        for (signer, cert, key) in own {
            let authority = match &shared {
                Some(shared) => Some(shared.clone()),
                None => self.authority(cert, key)?.map(Rc::new),
            };
            if let Some(authority) = authority {
                all.insert(signer, authority);
            }
        }
        Ok(all)
    }

    fn authority(
        &self,
        cert: &Option<PathBuf>,
        key: &Option<PathBuf>,
    ) -> Result<Option<Authority>, ControllersError> {
        let (Some(cert), Some(key)) = (cert, key) else { return Ok(None) };
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|source| ControllersError::ReadFile { path: path.clone(), source })
        };
        Ok(Some(Authority::from_pem(&read(cert)?, &read(key)?).map_err(ControllersError::SigningKey)?))
    }

    /// The mask of a node's share of the cluster's pod addresses.
    pub fn node_mask(&self) -> u8 {
        self.node_cidr_mask_size_ipv4.unwrap_or(self.node_cidr_mask_size)
    }

    /// Whether `--controllers` wants the controller of this name (or its old, short alias).
    pub fn wants(&self, name: &str, alias: &str, by_default: bool) -> bool {
        let named = |word: &str| word == name || word == alias;
        if self.controllers.iter().any(|word| word.strip_prefix('-').is_some_and(named)) {
            return false;
        }
        self.controllers.iter().any(|word| named(word))
            || (by_default && self.controllers.iter().any(|word| word == "*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::flags;

    /// What kubeadm writes into the manifest, word for word.
    const KUBEADM: &[&str] = &[
        "--allocate-node-cidrs=true",
        "--authentication-kubeconfig=/etc/kubernetes/controller-manager.conf",
        "--authorization-kubeconfig=/etc/kubernetes/controller-manager.conf",
        "--bind-address=127.0.0.1",
        "--client-ca-file=/etc/kubernetes/pki/ca.crt",
        "--cluster-cidr=10.244.0.0/16",
        "--cluster-name=kubernetes",
        "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt",
        "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key",
        "--controllers=*,bootstrapsigner,tokencleaner",
        "--kubeconfig=/etc/kubernetes/controller-manager.conf",
        "--leader-elect=true",
        "--requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt",
        "--root-ca-file=/etc/kubernetes/pki/ca.crt",
        "--service-account-private-key-file=/etc/kubernetes/pki/sa.key",
        "--service-cluster-ip-range=10.96.0.0/12",
        "--use-service-account-credentials=true",
    ];

    fn parse(words: &[&str]) -> Options {
        let (kept, _) = flags::sift(words.iter().map(|word| (*word).to_owned()).collect(), UNIMPLEMENTED);
        Options::try_parse_from(std::iter::once("kube-controller-manager".to_owned()).chain(kept)).unwrap()
    }

    #[test]
    fn kubeadms_manifest_is_understood() {
        let options = parse(KUBEADM);
        assert!(options.allocate_node_cidrs && options.use_service_account_credentials);
        assert_eq!(options.cluster_cidr.unwrap().to_string(), "10.244.0.0/16");
        assert_eq!(options.node_monitor_grace_period, Duration::from_secs(50));
    }

    #[test]
    fn controllers_are_chosen_as_upstream_chooses() {
        let options = parse(KUBEADM);
        assert!(options.wants("token-cleaner-controller", "tokencleaner", false));
        assert!(options.wants("namespace-controller", "namespace", true));
        let options = parse(&["--kubeconfig=x", "--controllers=*,-namespace"]);
        assert!(!options.wants("namespace-controller", "namespace", true));
        assert!(!options.wants("token-cleaner-controller", "tokencleaner", false));
    }
}
