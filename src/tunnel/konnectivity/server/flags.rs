//! The server's command line: upstream's flags with upstream's defaults (`cmd/server/app/options`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::identifiers::Strategy;
use crate::api::{flags, go_duration};
use crate::tunnel::konnectivity::{TunnelError, path};

/// What speaks on the frontend's port; a server has one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    Grpc,
    HttpConnect,
}

#[derive(Debug, Parser)]
#[command(name = "konnectivity-server", about = "Konnectivity's server, beside the API server", long_about = None, args_override_self = true)]
pub struct Flags {
    #[arg(long, default_value = "grpc")]
    pub mode: Mode,
    /// The frontend's Unix socket; then there is no TCP port
    #[arg(long, default_value = "", value_parser = path)]
    pub uds_name: PathBuf,
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub delete_existing_uds_file: bool,
    #[arg(long, default_value_t = 8090)]
    pub server_port: u16,
    #[arg(long, default_value = "")]
    pub server_bind_address: String,
    #[arg(long, default_value = "", value_parser = path)]
    pub server_cert: PathBuf,
    #[arg(long, default_value = "", value_parser = path)]
    pub server_key: PathBuf,
    #[arg(long, default_value = "", value_parser = path)]
    pub server_ca_cert: PathBuf,
    /// What agents are shown
    #[arg(long, default_value = "", value_parser = path)]
    pub cluster_cert: PathBuf,
    #[arg(long, default_value = "", value_parser = path)]
    pub cluster_key: PathBuf,
    /// Agents must have a certificate of this authority
    #[arg(long, default_value = "", value_parser = path)]
    pub cluster_ca_cert: PathBuf,
    #[arg(long, default_value_t = 8091)]
    pub agent_port: u16,
    #[arg(long, default_value = "")]
    pub agent_bind_address: String,
    #[arg(long, default_value_t = 8092)]
    pub health_port: u16,
    #[arg(long, default_value = "")]
    pub health_bind_address: String,
    #[arg(long, default_value_t = 8095)]
    pub admin_port: u16,
    #[arg(long, default_value = "127.0.0.1")]
    pub admin_bind_address: String,
    /// Agents must have a token of an account in this namespace
    #[arg(long, default_value = "")]
    pub agent_namespace: String,
    #[arg(long, default_value = "")]
    pub agent_service_account: String,
    #[arg(long, default_value = "")]
    pub authentication_audience: String,
    #[arg(long, default_value = "", value_parser = path)]
    pub kubeconfig: PathBuf,
    #[arg(long, env = "PROXY_SERVER_ID", default_value = "")]
    pub server_id: String,
    #[arg(long, default_value_t = 1)]
    pub server_count: usize,
    /// default, destHost, defaultRoute, and ours: cidr
    #[arg(long, value_delimiter = ',', default_value = "default", value_parser = Strategy::parse)]
    pub proxy_strategies: Vec<Strategy>,
    #[arg(long, default_value = "1h", value_parser = go_duration::parse)]
    pub keepalive_time: Duration,
    #[arg(long, default_value = "1h", value_parser = go_duration::parse)]
    pub frontend_keepalive_time: Duration,
    /// 0 waits for as long as the frontend does
    #[arg(long, default_value = "0", value_parser = go_duration::parse)]
    pub backend_dial_timeout: Duration,
    #[arg(long, default_value = "0", value_parser = go_duration::parse)]
    pub graceful_shutdown_timeout: Duration,
    /// Keep a Lease that tells agents how many servers there are
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub enable_lease_controller: bool,
    #[arg(long, default_value = "kube-system")]
    pub lease_namespace: String,
    #[arg(long, default_value = "k8s-app=konnectivity-server")]
    pub lease_label: String,
}

/// Real flags that have no effect here.
const UNIMPLEMENTED: &[&str] = &[
    "cipher-suites=",
    "enable-contention-profiling",
    "enable-profiling",
    "frontend-write-channel-size=",
    "kube-api-content-type=",
    "kubeconfig-burst=",
    "kubeconfig-qps=",
    "tls-min-version=",
    "warn-on-channel-limit",
    "xfr-channel-size=",
];

/// klog's flags, which upstream spells with dashes.
pub const KLOG: &[&str] = &[
    "add-dir-header",
    "alsologtostderr",
    "legacy-stderr-threshold-behavior",
    "log-backtrace-at=",
    "log-dir=",
    "log-file-max-size=",
    "log-file=",
    "logtostderr",
    "one-output",
    "skip-headers",
    "skip-log-headers",
    "stderrthreshold=",
    "v=",
    "vmodule=",
];

impl Flags {
    /// Reads the command line after argv\[0\].
    pub fn read(argv: Vec<String>) -> Result<Self, clap::Error> {
        let unimplemented: Vec<&str> = UNIMPLEMENTED.iter().chain(KLOG).copied().collect();
        let (kept, dropped) = flags::sift(argv, &unimplemented);
        for flag in dropped
            .iter()
            .filter(|flag| !KLOG.iter().any(|own| flag.trim_start_matches('-') == own.trim_end_matches('=')))
        {
            tracing::warn!(flag, "this flag of the real component has no effect here");
        }
        Self::try_parse_from(std::iter::once("konnectivity-server".to_owned()).chain(kept))
    }

    /// What upstream refuses to start with.
    pub fn check(&self) -> Result<(), TunnelError> {
        let wrong = |text: &str| Err(TunnelError::Flags(text.into()));
        let given = |path: &PathBuf| !path.as_os_str().is_empty();
        if given(&self.uds_name) {
            if self.server_port != 0 {
                let port = self.server_port;
                return wrong(&format!("server port should be set to 0 not {port} for UDS"));
            }
            let keys =
                [("key", &self.server_key), ("cert", &self.server_cert), ("ca cert", &self.server_ca_cert)];
            if let Some((name, _)) = keys.iter().find(|(_, path)| given(path)) {
                return wrong(&format!("server {name} should not be set for UDS"));
            }
        } else if !given(&self.server_ca_cert) {
            return wrong("server ca cert must be set when in TCP mode (uds-name is empty)");
        } else if !given(&self.server_cert) || !given(&self.server_key) {
            return wrong("server-cert and server-key are required in TCP mode");
        }
        if !given(&self.cluster_cert) || !given(&self.cluster_key) {
            return wrong("cluster-cert and cluster-key are required");
        }
        self.check_ports()?;
        self.check_agents()
    }

    fn check_ports(&self) -> Result<(), TunnelError> {
        let mut ports =
            vec![(self.agent_port, "agent"), (self.admin_port, "admin"), (self.health_port, "health")];
        if self.uds_name.as_os_str().is_empty() {
            ports.push((self.server_port, "server"));
        }
        let kind = |port: u16| match port {
            ..1024 => Some("reserved"),
            1024..=49151 => None,
            _ => Some("ephemeral"),
        };
        match ports.into_iter().find_map(|(port, whose)| Some((kind(port)?, port, whose))) {
            None => Ok(()),
            Some((kind, port, whose)) => Err(TunnelError::Flags(format!(
                "please do not try to use {kind} port {port} for the {whose} port"
            ))),
        }
    }

    /// How agents prove who they are: all of it by token, or none.
    fn check_agents(&self) -> Result<(), TunnelError> {
        let named = [
            ("--agent-namespace", &self.agent_namespace),
            ("--agent-service-account", &self.agent_service_account),
            ("--authentication-audience", &self.authentication_audience),
        ];
        if named.iter().all(|(_, value)| value.is_empty()) {
            return Ok(());
        }
        if !self.cluster_ca_cert.as_os_str().is_empty() {
            let text = "--cluster-ca-cert can not be used when agent authentication is enabled";
            return Err(TunnelError::Flags(text.into()));
        }
        if let Some((flag, _)) = named.iter().find(|(_, value)| value.is_empty()) {
            let text = format!("{flag} cannot be empty when agent authentication is enabled");
            return Err(TunnelError::Flags(text));
        }
        Ok(())
    }

    pub fn by_token(&self) -> bool {
        !self.agent_namespace.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Flags {
        Flags::read(line.split_whitespace().map(str::to_owned).collect()).unwrap()
    }

    const GOOD: &str = "--uds-name=/s --server-port=0 --cluster-cert=c --cluster-key=k";

    #[test]
    fn a_manifest_of_upstreams_task_is_read() {
        let flags = read(
            "--logtostderr=true --uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket \
             --delete-existing-uds-file --cluster-cert=/etc/kubernetes/pki/apiserver.crt \
             --cluster-key=/etc/kubernetes/pki/apiserver.key --mode=grpc --server-port=0 --agent-port=8132 \
             --admin-port=8133 --health-port=8134 --agent-namespace=kube-system \
             --agent-service-account=konnectivity-agent --kubeconfig=/etc/kubernetes/konnectivity-server.conf \
             --authentication-audience=system:konnectivity-server",
        );
        assert!(flags.check().is_ok() && flags.by_token() && flags.delete_existing_uds_file);
        assert_eq!(flags.proxy_strategies, [Strategy::Default]);
        assert_eq!(flags.keepalive_time, Duration::from_secs(3600));
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        assert!(read(GOOD).check().is_ok());
        for more in [
            "--server-cert=c",
            "--agent-namespace=a",
            "--agent-port=80",
            "--cluster-ca-cert=c --agent-namespace=a --agent-service-account=b --authentication-audience=c",
        ] {
            assert!(read(&format!("{GOOD} {more}")).check().is_err(), "{more}");
        }
        assert!(read("--cluster-cert=c --cluster-key=k").check().is_err());
        assert!(Flags::read(vec!["--proxy-strategies=best".into()]).is_err());
    }
}
