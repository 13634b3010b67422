//! kube-proxy's flags and its `KubeProxyConfiguration` file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use ipnet::Ipv4Net;
use serde::Deserialize;

use super::ProxyError;
use crate::api::flags;

/// Real flags that have no meaning here; each is named in a warning at start.
const UNIMPLEMENTED: &[&str] = &[
    "v=",
    "vmodule=",
    "profiling",
    "feature-gates=",
    "oom-score-adj=",
    "conntrack-max-per-core=",
    "conntrack-min=",
    "conntrack-tcp-timeout-established=",
    "conntrack-tcp-timeout-close-wait=",
    "config-sync-period=",
    "kube-api-burst=",
    "kube-api-qps=",
    "kube-api-content-type=",
    "min-sync-period=",
    "sync-period=",
    "iptables-min-sync-period=",
    "iptables-sync-period=",
    "iptables-localhost-nodeports",
    "detect-local-mode=",
    "write-config-to=",
    "show-hidden-metrics-for-version=",
    "bind-address=",
    "bind-address-hard-fail",
    "logging-format=",
];

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "kube-proxy", disable_version_flag = true)]
pub struct Options {
    /// The path to the configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Path to kubeconfig file with authorization information.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// If non-empty, will be used as the name of the Node that kube-proxy is running on.
    #[arg(long)]
    hostname_override: Option<String>,
    /// The CIDR range of the pods in the cluster.
    #[arg(long)]
    cluster_cidr: Option<Ipv4Net>,
    /// Addresses of the node that node ports are served on, as CIDRs; `primary` means the node's own.
    #[arg(long, value_delimiter = ',')]
    nodeport_addresses: Vec<String>,
    /// Masquerade all traffic sent to service addresses.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    masquerade_all: Option<bool>,
    /// Which proxy mode to use; only nftables is built in.
    #[arg(long)]
    proxy_mode: Option<String>,
    /// The IP address and port for the health check server to serve on.
    #[arg(long)]
    healthz_bind_address: Option<String>,
    /// The IP address and port for the metrics server to serve on.
    #[arg(long)]
    metrics_bind_address: Option<String>,
    /// If true cleanup nftables rules and exit.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          action = clap::ArgAction::Set)]
    pub cleanup: bool,
    /// Print version information and quit.
    #[arg(long)]
    pub version: bool,
}

/// Reads the command line.
///
/// # Errors
/// clap's, which also carries `--help`.
pub fn parse(argv: Vec<String>) -> Result<Options, clap::Error> {
    let (kept, dropped) = flags::sift(argv, UNIMPLEMENTED);
    for flag in dropped {
        tracing::warn!(flag, "this flag has no effect in minilab");
    }
    Options::try_parse_from(std::iter::once("kube-proxy".to_owned()).chain(kept))
}

/// The file, as far as it is used.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    client_connection: ClientConnection,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: String,
    hostname_override: String,
    healthz_bind_address: String,
    metrics_bind_address: String,
    mode: String,
    nftables: Nftables,
    node_port_addresses: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ClientConnection {
    kubeconfig: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Nftables {
    masquerade_all: bool,
    masquerade_bit: Option<u8>,
}

/// The settings in force: flags, else the file, else upstream's defaults.
#[derive(Debug, Clone)]
pub struct Config {
    pub kubeconfig: PathBuf,
    pub node: String,
    /// Traffic from outside it that goes to a service address is masqueraded.
    pub cluster_cidr: Option<Ipv4Net>,
    pub masquerade_all: bool,
    pub masquerade_mark: u32,
    /// Where node ports are served; empty means at every address the Node object names.
    pub node_port_nets: Vec<Ipv4Net>,
    pub healthz: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
}

impl Config {
    pub fn load(options: &Options) -> Result<Self, ProxyError> {
        let file = match &options.config {
            None => File::default(),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ProxyError::ReadConfig { path: name.clone(), source })?;
                serde_yaml_ng::from_str(&text)
                    .map_err(|source| ProxyError::ParseConfig { path: name, source })?
            }
        };
        let mode = options.proxy_mode.as_deref().unwrap_or(&file.mode);
        if !matches!(mode, "" | "nftables") {
            tracing::warn!(mode, "only the nftables proxy mode is built in; using it");
        }
        let text = |flag: &Option<String>, file: &str, default: &str| -> String {
            let file = if file.is_empty() { default } else { file };
            flag.clone().unwrap_or_else(|| file.to_owned())
        };
        let nets = match options.nodeport_addresses.is_empty() {
            true => file.node_port_addresses.unwrap_or_default(),
            false => options.nodeport_addresses.clone(),
        };
        let hostname = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            kubeconfig: options.kubeconfig.clone().unwrap_or(file.client_connection.kubeconfig),
            node: text(&options.hostname_override, &file.hostname_override, &hostname),
            cluster_cidr: options.cluster_cidr.or_else(|| file.cluster_cidr.parse().ok()),
            masquerade_all: options.masquerade_all.unwrap_or(file.nftables.masquerade_all),
            node_port_nets: nets.iter().filter_map(|net| net.parse().ok()).collect(),
            masquerade_mark: 1 << file.nftables.masquerade_bit.unwrap_or(14).min(31),
            healthz: text(&options.healthz_bind_address, &file.healthz_bind_address, "0.0.0.0:10256")
                .parse()
                .ok(),
            metrics: text(&options.metrics_bind_address, &file.metrics_bind_address, "127.0.0.1:10249")
                .parse()
                .ok(),
        })
    }
}
