//! The agent's command line: upstream's flags with upstream's defaults (`cmd/agent/app/options`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::api::{flags, go_duration};
use crate::tunnel::konnectivity::server::KLOG;
use crate::tunnel::konnectivity::{TunnelError, path};

#[derive(Debug, Clone, Parser)]
#[command(name = "konnectivity-agent", about = "Konnectivity's agent, on a node", long_about = None, args_override_self = true)]
pub struct Flags {
    /// Whom the server is believed by
    #[arg(long, default_value = "", value_parser = path)]
    pub ca_cert: PathBuf,
    #[arg(long, default_value = "", value_parser = path)]
    pub agent_cert: PathBuf,
    #[arg(long, default_value = "", value_parser = path)]
    pub agent_key: PathBuf,
    #[arg(long, default_value = "127.0.0.1")]
    pub proxy_server_host: String,
    #[arg(long, default_value_t = 8091)]
    pub proxy_server_port: u16,
    #[arg(long, default_value = "", value_parser = path)]
    pub service_account_token_path: PathBuf,
    /// What this agent reaches: ipv4=…&ipv6=…&host=…&cidr=…&default-route=true
    #[arg(long, default_value = "")]
    pub agent_identifiers: String,
    #[arg(long, env = "PROXY_AGENT_ID", default_value = "")]
    pub agent_id: String,
    #[arg(long, default_value = "1s", value_parser = go_duration::parse)]
    pub sync_interval: Duration,
    #[arg(long, default_value = "10s", value_parser = go_duration::parse)]
    pub sync_interval_cap: Duration,
    #[arg(long, default_value = "1s", value_parser = go_duration::parse)]
    pub probe_interval: Duration,
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub sync_forever: bool,
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub count_server_leases: bool,
    #[arg(long, default_value = "kube-system")]
    pub lease_namespace: String,
    #[arg(long, alias = "lease-label", default_value = "k8s-app=konnectivity-server")]
    pub lease_label_selector: String,
    #[arg(long, default_value = "default")]
    pub server_count_source: String,
    #[arg(long, default_value = "", value_parser = path)]
    pub kubeconfig: PathBuf,
    #[arg(long, default_value = "1h", value_parser = go_duration::parse)]
    pub keepalive_time: Duration,
    #[arg(long, default_value = "")]
    pub health_server_host: String,
    #[arg(long, default_value_t = 8093)]
    pub health_server_port: u16,
    #[arg(long, default_value = "127.0.0.1")]
    pub admin_bind_address: String,
    #[arg(long, default_value_t = 8094)]
    pub admin_server_port: u16,
    /// What is offered beside h2, for a balancer that tells connections apart by it
    #[arg(long, value_delimiter = ',')]
    pub alpn_proto: Vec<String>,
}

/// Real flags that have no effect here.
const UNIMPLEMENTED: &[&str] = &[
    "enable-contention-profiling",
    "enable-profiling",
    "kube-api-content-type=",
    "warn-on-channel-limit",
    "xfr-channel-size=",
];

/// The keys upstream's agent knows.
const KEYS: &[&str] = &["ipv4", "ipv6", "host", "cidr", "default-route"];

impl Flags {
    /// Reads the command line after argv\[0\].
    pub fn read(argv: Vec<String>) -> Result<Self, clap::Error> {
        let unimplemented: Vec<&str> = UNIMPLEMENTED.iter().chain(KLOG).copied().collect();
        let (kept, dropped) = flags::sift(argv, &unimplemented);
        let named = |flag: &&String| {
            UNIMPLEMENTED.iter().any(|own| flag.trim_start_matches('-') == own.trim_end_matches('='))
        };
        for flag in dropped.iter().filter(named) {
            tracing::warn!(flag, "this flag of the real component has no effect here");
        }
        Self::try_parse_from(std::iter::once("konnectivity-agent".to_owned()).chain(kept))
    }

    /// What upstream refuses to start with.
    pub fn check(&self) -> Result<(), TunnelError> {
        let wrong = |text: String| Err(TunnelError::Flags(text));
        for pair in self.agent_identifiers.split('&').filter(|pair| !pair.is_empty()) {
            let key = pair.split('=').next().unwrap_or_default();
            if !KEYS.contains(&key) {
                return wrong(format!("agent address is invalid: unknown address type: {key}"));
            }
        }
        if self.agent_cert.as_os_str().is_empty() != self.agent_key.as_os_str().is_empty() {
            return wrong("agent cert and agent key go together or not at all".into());
        }
        if self.sync_interval > self.sync_interval_cap {
            return wrong(format!(
                "sync interval {:?} must be less than sync interval cap {:?}",
                self.sync_interval, self.sync_interval_cap
            ));
        }
        match self.server_count_source.as_str() {
            "default" | "max" => Ok(()),
            other => wrong(format!("--server-count-source must be one of 'default' or 'max', got {other}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_upstreams_task_is_read() {
        let line = "--logtostderr=true --ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
                    --proxy-server-host=198.51.100.2 --proxy-server-port=8132 --admin-server-port=8133 \
                    --health-server-port=8134 --alpn-proto=[] \
                    --service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token \
                    --agent-identifiers=ipv4=192.0.2.11&host=node-1";
        let flags = Flags::read(line.split_whitespace().map(str::to_owned).collect()).unwrap();
        assert!(flags.check().is_ok());
        assert_eq!((flags.health_server_port, flags.sync_interval), (8134, Duration::from_secs(1)));
        let unknown = Flags::read(vec!["--agent-identifiers=zone=a".into()]).unwrap();
        assert!(unknown.check().is_err());
    }
}
