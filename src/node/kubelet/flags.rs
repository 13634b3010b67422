//! The kubelet's command line (`cmd/kubelet/app/options`), as far as it means something here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, CommandFactory, Parser};

use crate::api::go_duration;

/// A flag that pflag reads as `--x`, `--x=true` or `--x=false`.
macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Switches; absent means the configuration file or the default decides.
        #[derive(Debug, Clone, Default, clap::Args)]
        pub struct Switches {
            $($(#[$doc])*
            #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
            pub $name: Option<bool>,)*
        }
    };
}

switches! {
    /// Enables anonymous requests to the Kubelet server
    anonymous_auth,
    /// Use the TokenReview API to determine authentication for bearer tokens
    authentication_token_webhook,
    /// Enables server endpoints for log collection and local running of containers and commands
    enable_debugging_handlers,
    /// Enable the Kubelet's server
    enable_server,
    /// Register the node with the apiserver
    register_node,
    /// Auto rotate the kubelet client certificates
    rotate_certificates,
    /// Auto-request and rotate the kubelet serving certificates
    rotate_server_certificates,
}

#[derive(Debug, Clone, Parser)]
#[command(
    name = "kubelet",
    disable_version_flag = true,
    about = "The node agent: runs the pods bound to this node"
)]
pub struct Flags {
    /// Load the initial configuration from this file
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Path to a kubeconfig file, specifying how to connect to the API server
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Path to a kubeconfig file that will be used to get client certificate for kubelet
    #[arg(long)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// The directory where the TLS certs are located
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub cert_dir: PathBuf,
    /// Directory path for managing kubelet files (volume mounts, etc)
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// If non-empty, will use this string as identification instead of the actual hostname
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// IP address of the node
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// Labels to add when registering the node in the cluster
    #[arg(long, default_value = "")]
    pub node_labels: String,
    /// Register the node with the given list of taints (`<key>=<value>:<effect>`, comma separated)
    #[arg(long, default_value = "")]
    pub register_with_taints: String,
    /// The IP address for the Kubelet to serve on
    #[arg(long)]
    pub address: Option<IpAddr>,
    /// The port for the Kubelet to serve on
    #[arg(long)]
    pub port: Option<u16>,
    /// The read-only port for the Kubelet to serve on with no authentication/authorization (0 to disable)
    #[arg(long)]
    pub read_only_port: Option<u16>,
    /// The port of the localhost healthz endpoint (0 to disable)
    #[arg(long)]
    pub healthz_port: Option<u16>,
    /// The IP address for the healthz server to serve on
    #[arg(long)]
    pub healthz_bind_address: Option<IpAddr>,
    /// Authorization mode for Kubelet server: AlwaysAllow or Webhook
    #[arg(long)]
    pub authorization_mode: Option<String>,
    /// Any request presenting a client certificate signed by one of these authorities is authenticated
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// File containing x509 Certificate used for serving HTTPS
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing x509 private key matching --tls-cert-file
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Comma-separated list of DNS server IP addresses
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<String>,
    /// Domain for this cluster
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// Number of Pods that can run on this Kubelet
    #[arg(long)]
    pub max_pods: Option<u32>,
    /// How long responses of the TokenReview webhook are believed
    #[arg(long, value_parser = go_duration::parse)]
    pub authentication_token_webhook_cache_ttl: Option<Duration>,
    /// How long 'authorized' responses of the SubjectAccessReview webhook are believed
    #[arg(long, value_parser = go_duration::parse)]
    pub authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long 'unauthorized' responses of the SubjectAccessReview webhook are believed
    #[arg(long, value_parser = go_duration::parse)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
    /// How long a streaming connection may be idle before it is closed
    #[arg(long, value_parser = go_duration::parse)]
    pub streaming_connection_idle_timeout: Option<Duration>,
    /// Path to the directory containing static pod files to run, or to a single static pod file
    #[arg(long)]
    pub pod_manifest_path: Option<PathBuf>,
    /// The maximum number of processes per pod (-1: no limit)
    #[arg(long, allow_hyphen_values = true)]
    pub pod_max_pids: Option<i64>,
    /// The maximum size of a container's log file before it is rotated (10Mi)
    #[arg(long)]
    pub container_log_max_size: Option<String>,
    /// The maximum number of log files that can be present for a container
    #[arg(long)]
    pub container_log_max_files: Option<u32>,
    /// Unsafe sysctls or patterns that end in * which pods may set (comma separated)
    #[arg(long, value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// key=value pairs that describe feature gates
    #[arg(long, default_value = "")]
    pub feature_gates: String,
    #[command(flatten)]
    pub switches: Switches,
    /// The words themselves.
    #[arg(skip)]
    pub words: Vec<String>,
}

impl Flags {
    /// Names and values given on the command line, as `/flagz` lists them.
    pub fn spoken(&self) -> Vec<(String, String)> {
        let known: Vec<String> = Self::command()
            .get_arguments()
            .filter_map(|argument| argument.get_long().map(str::to_owned))
            .collect();
        let mut words = self.words.iter().peekable();
        let mut spoken = Vec::new();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else { continue };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => match words.peek() {
                    Some(next) if !next.starts_with("--") => (flag, (*next).clone()),
                    _ => (flag, "true".to_owned()),
                },
            };
            if known.iter().any(|one| one == name) {
                spoken.push((name.to_owned(), value));
            }
        }
        spoken.sort();
        spoken
    }
}

/// Real flags that mean nothing here; `=` marks those with a value.
pub const UNIMPLEMENTED: &[&str] = &[
    "cgroup-driver=",
    "cgroup-root=",
    "cgroups-per-qos",
    "config-dir=",
    "container-runtime-endpoint=",
    "contention-profiling",
    "cpu-cfs-quota",
    "cpu-manager-policy=",
    "enable-controller-attach-detach",
    "enforce-node-allocatable=",
    "event-burst=",
    "event-qps=",
    "eviction-hard=",
    "eviction-soft=",
    "fail-swap-on",
    "file-check-frequency=",
    "hairpin-mode=",
    "http-check-frequency=",
    "image-gc-high-threshold=",
    "image-gc-low-threshold=",
    "image-service-endpoint=",
    "kube-api-burst=",
    "kube-api-content-type=",
    "kube-api-qps=",
    "kube-reserved=",
    "kube-reserved-cgroup=",
    "kubelet-cgroups=",
    "log-flush-frequency=",
    "logging-format=",
    "make-iptables-util-chains",
    "manifest-url=",
    "max-open-files=",
    "node-status-max-images=",
    "node-status-update-frequency=",
    "oom-score-adj=",
    "pod-cidr=",
    "pod-infra-container-image=",
    "pods-per-core=",
    "protect-kernel-defaults",
    "provider-id=",
    "registry-burst=",
    "registry-qps=",
    "reserved-cpus=",
    "resolv-conf=",
    "runtime-cgroups=",
    "runtime-request-timeout=",
    "seccomp-default",
    "serialize-image-pulls",
    "sync-frequency=",
    "system-cgroups=",
    "system-reserved=",
    "system-reserved-cgroup=",
    "tls-cipher-suites=",
    "tls-min-version=",
    "topology-manager-policy=",
    "v=",
    "vmodule=",
    "volume-plugin-dir=",
    "volume-stats-agg-period=",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_pflag_reads_them() {
        let words = "kubelet --kubeconfig=/k --config /c --anonymous-auth --rotate-certificates=false --node-ip=192.0.2.11";
        let flags = Flags::try_parse_from(words.split(' ')).unwrap();
        assert_eq!(flags.switches.anonymous_auth, Some(true));
        assert_eq!(flags.switches.rotate_certificates, Some(false));
        assert_eq!(flags.switches.register_node, None);
        assert_eq!(flags.config.as_deref(), Some(std::path::Path::new("/c")));
        assert!(Flags::try_parse_from(["kubelet", "--no-such-flag"]).is_err());
    }
}
