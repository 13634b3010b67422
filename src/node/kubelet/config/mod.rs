//! The kubelet's configuration: flags over `KubeletConfiguration` (v1beta1) over defaults.
//!
//! There are two default sets, as upstream: without `--config` the old command line's wide open one
//! (`applyLegacyDefaults`), with it the closed one of the file format. Fields that mean nothing here are
//! accepted with a warning.

mod configz;
mod file;
mod gates;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use gates::Gates;

use super::KubeletError;
use super::flags::Flags;
use crate::api::go_duration;
use crate::api::quantity::Quantity;
use crate::client::delegated::{Anonymous, Ttls};
use file::File;

/// Who decides what callers of the kubelet's own port may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// Nobody.
    ///
    /// # Warning
    ///
    /// Whoever is authenticated (or anonymous, where allowed) runs commands in every pod
    /// (`--authorization-mode=AlwaysAllow`).
    AlwaysAllow,
    /// The API server, by SubjectAccessReview.
    Webhook,
}

/// Where the certificate of :10250 comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// Made by the kubelet itself; nobody can verify it.
    SelfSigned,
    /// `serverTLSBootstrap`: a CSR of signer `kubernetes.io/kubelet-serving`, which somebody approves.
    Bootstrap,
    Files {
        cert: PathBuf,
        key: PathBuf,
    },
}

/// Which groups of endpoints :10250 has (`enable*Handler`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handlers {
    /// The rest needs this one too.
    pub debugging: bool,
    pub profiling: bool,
    pub debug_flags: bool,
    pub system_log: bool,
    pub system_log_query: bool,
}

/// What holds after flags, file and defaults have been merged.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: Option<IpAddr>,
    pub node_labels: BTreeMap<String, String>,
    pub taints: Vec<(String, String, String)>,
    pub register_node: bool,
    pub kubeconfig: PathBuf,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub cert_dir: PathBuf,
    pub root_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub static_pods: Option<PathBuf>,
    pub file_check: Duration,
    /// `enableServer`: whether :10250 and the read-only port exist at all.
    pub server: bool,
    pub listen: SocketAddr,
    pub read_only: Option<SocketAddr>,
    pub healthz: Option<SocketAddr>,
    pub anonymous: Anonymous,
    pub webhook_authentication: bool,
    pub client_ca: Option<PathBuf>,
    pub authorization: AuthorizationMode,
    /// How long answers of TokenReview and SubjectAccessReview are believed.
    pub ttls: Ttls,
    pub rotate_certificates: bool,
    pub serving: Serving,
    pub handlers: Handlers,
    pub stream_idle: Duration,
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    pub max_pods: u32,
    /// Beside the safe ones; a pattern ends in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Processes a pod may have; nothing: as many as the machine allows.
    pub pod_pids: Option<u64>,
    /// `containerLogMaxSize` as it was written, and in bytes.
    pub log_max_size: String,
    pub log_max_bytes: u64,
    pub log_max_files: u32,
    pub log_check: Duration,
    pub gates: Gates,
    /// The file's fields and the gates that have no effect here.
    pub ignored: Vec<String>,
    /// The command line as it was understood, for `/flagz`.
    pub flags: Vec<(String, String)>,
}

impl Config {
    /// Reads the file a flag names, if any, and merges.
    pub fn read(flags: Flags, hostname: &str) -> Result<Self, KubeletError> {
        let file = match &flags.config {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| KubeletError::Read { path: path.clone(), source })?;
                let parse = |source| KubeletError::ParseConfig { path: path.clone(), source };
                Some(serde_yaml_ng::from_str(&text).map_err(parse)?)
            }
        };
        Self::merge(flags, file, hostname)
    }

    fn merge(flags: Flags, file: Option<File>, hostname: &str) -> Result<Self, KubeletError> {
        let defaults = if file.is_some() { Defaults::CLOSED } else { Defaults::LEGACY };
        let file = file.unwrap_or_default();
        let on = flags.switches.clone();
        let gates = Gates::read(file.feature_gates.as_ref(), &flags.feature_gates)?;
        let mut ignored = file.ignored();
        ignored.extend(gates.ignored().map(str::to_owned));
        let log_max_size = flags
            .container_log_max_size
            .clone()
            .or(file.container_log_max_size.clone())
            .filter(|size| !size.is_empty())
            .unwrap_or_else(|| "10Mi".into());
        if file.pod_pids_limit.is_some_and(|limit| limit > 0) || flags.pod_max_pids.is_some() {
            ignored.push("podPidsLimit".into());
        }
        let pids = flags.pod_max_pids.or(file.pod_pids_limit).unwrap_or(-1);
        let ports = Ports::of(&flags, &file, &defaults);
        let mode = flags.authorization_mode.as_ref().or(file.authorization.mode.as_ref());
        Ok(Self {
            node_name: match flags.hostname_override.trim() {
                "" => hostname.trim().to_lowercase(),
                name => name.to_lowercase(),
            },
            node_ip: flags.node_ip,
            node_labels: labels(&flags.node_labels)?,
            taints: taints(&flags.register_with_taints)?,
            register_node: on.register_node.or(file.register_node).unwrap_or(true),
            pod_logs_dir: file.pod_logs_dir.clone().unwrap_or_else(|| "/var/log/pods".into()),
            static_pods: flags
                .pod_manifest_path
                .clone()
                .or(file.static_pod_path.clone())
                .filter(|path| !path.as_os_str().is_empty()),
            file_check: duration("fileCheckFrequency", None, &file.file_check_frequency, 20)?,
            server: on.enable_server.or(file.enable_server).unwrap_or(true),
            listen: ports.listen,
            read_only: ports.read_only,
            healthz: ports.healthz,
            anonymous: match on.anonymous_auth.or(file.authentication.anonymous.enabled) {
                Some(true) => Anonymous::Allowed,
                Some(false) => Anonymous::Refused,
                None => defaults.anonymous,
            },
            webhook_authentication: on
                .authentication_token_webhook
                .or(file.authentication.webhook.enabled)
                .unwrap_or(defaults.webhook),
            client_ca: flags
                .client_ca_file
                .clone()
                .or(file.authentication.x509.client_ca_file.clone())
                .filter(|path| !path.as_os_str().is_empty()),
            authorization: match mode.map(String::as_str) {
                None | Some("") => defaults.authorization,
                Some("AlwaysAllow") => AuthorizationMode::AlwaysAllow,
                Some("Webhook") => AuthorizationMode::Webhook,
                Some(other) => return Err(KubeletError::AuthorizationMode(other.into())),
            },
            ttls: ttls(&flags, &file)?,
            rotate_certificates: on.rotate_certificates.or(file.rotate_certificates).unwrap_or(false),
            serving: serving(&flags, &file, &gates),
            handlers: Handlers {
                debugging: on.enable_debugging_handlers.or(file.enable_debugging_handlers).unwrap_or(true),
                profiling: file.enable_profiling_handler.unwrap_or(true),
                debug_flags: file.enable_debug_flags_handler.unwrap_or(true),
                system_log: file.enable_system_log_handler.unwrap_or(true),
                system_log_query: file.enable_system_log_query.unwrap_or(false),
            },
            stream_idle: duration(
                "streaming-connection-idle-timeout",
                flags.streaming_connection_idle_timeout,
                &file.streaming_connection_idle_timeout,
                4 * 3600,
            )?,
            cluster_dns: match flags.cluster_dns.is_empty() {
                true => file.cluster_dns.clone().unwrap_or_default(),
                false => flags.cluster_dns.clone(),
            },
            cluster_domain: flags.cluster_domain.clone().or(file.cluster_domain.clone()).unwrap_or_default(),
            allowed_unsafe_sysctls: match flags.allowed_unsafe_sysctls.is_empty() {
                true => file.allowed_unsafe_sysctls.clone().unwrap_or_default(),
                false => flags.allowed_unsafe_sysctls.clone(),
            },
            max_pods: flags.max_pods.or(file.max_pods).unwrap_or(110),
            pod_pids: u64::try_from(pids).ok().filter(|limit| *limit > 0),
            log_max_bytes: size("containerLogMaxSize", &log_max_size)?,
            log_max_size,
            log_max_files: log_files(flags.container_log_max_files.or(file.container_log_max_files))?,
            log_check: duration(
                "containerLogMonitorInterval",
                None,
                &file.container_log_monitor_interval,
                10,
            )?,
            gates,
            ignored,
            flags: flags.spoken(),
            kubeconfig: flags.kubeconfig.ok_or(KubeletError::NoKubeconfig)?,
            bootstrap_kubeconfig: flags.bootstrap_kubeconfig,
            cert_dir: flags.cert_dir,
            root_dir: flags.root_dir,
        })
    }
}

/// The three addresses a kubelet listens on.
struct Ports {
    listen: SocketAddr,
    read_only: Option<SocketAddr>,
    healthz: Option<SocketAddr>,
}

impl Ports {
    fn of(flags: &Flags, file: &File, defaults: &Defaults) -> Self {
        let address = flags.address.or(file.address).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let port = |port: u16, address| (port != 0).then(|| SocketAddr::new(address, port));
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let healthz = flags.healthz_bind_address.or(file.healthz_bind_address).unwrap_or(local);
        let main = flags.port.or(file.port).filter(|port| *port != 0).unwrap_or(10250);
        let read_only = flags.read_only_port.or(file.read_only_port).unwrap_or(defaults.read_only_port);
        Self {
            listen: SocketAddr::new(address, main),
            read_only: port(read_only, address),
            healthz: port(flags.healthz_port.or(file.healthz_port).unwrap_or(10248), healthz),
        }
    }
}

fn serving(flags: &Flags, file: &File, gates: &Gates) -> Serving {
    let path = |path: Option<&PathBuf>| path.filter(|path| !path.as_os_str().is_empty()).cloned();
    let cert = path(flags.tls_cert_file.as_ref().or(file.tls_cert_file.as_ref()));
    let key = path(flags.tls_private_key_file.as_ref().or(file.tls_private_key_file.as_ref()));
    let bootstrap = flags.switches.rotate_server_certificates.or(file.server_tls_bootstrap) == Some(true);
    match (cert, key) {
        (Some(cert), Some(key)) => Serving::Files { cert, key },
        _ if bootstrap && gates.on("RotateKubeletServerCertificate") => Serving::Bootstrap,
        _ => Serving::SelfSigned,
    }
}

fn ttls(flags: &Flags, file: &File) -> Result<Ttls, KubeletError> {
    let usual = Ttls::default();
    let (tokens, asked) = (&file.authentication.webhook, &file.authorization.webhook);
    let read =
        |name, flag, text: &Option<String>, usual: Duration| duration(name, flag, text, usual.as_secs());
    Ok(Ttls {
        token: read(
            "authentication-token-webhook-cache-ttl",
            flags.authentication_token_webhook_cache_ttl,
            &tokens.cache_ttl,
            usual.token,
        )?,
        allowed: read(
            "authorization-webhook-cache-authorized-ttl",
            flags.authorization_webhook_cache_authorized_ttl,
            &asked.cache_authorized_ttl,
            usual.allowed,
        )?,
        denied: read(
            "authorization-webhook-cache-unauthorized-ttl",
            flags.authorization_webhook_cache_unauthorized_ttl,
            &asked.cache_unauthorized_ttl,
            usual.denied,
        )?,
    })
}

/// A flag, else the file's text, else a number of seconds. Zero in the file means the default.
fn duration(
    name: &'static str,
    flag: Option<Duration>,
    text: &Option<String>,
    usual: u64,
) -> Result<Duration, KubeletError> {
    if let Some(flag) = flag {
        return Ok(flag);
    }
    let read = match text.as_deref() {
        None | Some("") => Duration::ZERO,
        Some(text) => go_duration::parse(text).map_err(|_| KubeletError::Flag(name, text.to_owned()))?,
    };
    Ok(if read.is_zero() { Duration::from_secs(usual) } else { read })
}

fn size(name: &'static str, text: &str) -> Result<u64, KubeletError> {
    let bad = || KubeletError::Flag(name, text.to_owned());
    let bytes = Quantity::parse(text).map_err(|_| bad())?.value();
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0).ok_or_else(bad)
}

/// `ValidateKubeletConfiguration`: one to write, one to read.
fn log_files(asked: Option<u32>) -> Result<u32, KubeletError> {
    match asked {
        None | Some(0) => Ok(5),
        Some(1) => Err(KubeletError::Flag("container-log-max-files", "1".into())),
        Some(files) => Ok(files),
    }
}

/// The part of the defaults in which the two sets differ.
struct Defaults {
    anonymous: Anonymous,
    webhook: bool,
    authorization: AuthorizationMode,
    read_only_port: u16,
}

impl Defaults {
    const CLOSED: Self = Self {
        anonymous: Anonymous::Refused,
        webhook: true,
        authorization: AuthorizationMode::Webhook,
        read_only_port: 0,
    };
    const LEGACY: Self = Self {
        anonymous: Anonymous::Allowed,
        webhook: false,
        authorization: AuthorizationMode::AlwaysAllow,
        read_only_port: 10255,
    };
}

fn labels(text: &str) -> Result<BTreeMap<String, String>, KubeletError> {
    let pair = |pair: &str| {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| KubeletError::Flag("node-labels", pair.into()))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect()
}

/// `key=value:effect` or `key:effect`.
fn taints(text: &str) -> Result<Vec<(String, String, String)>, KubeletError> {
    let one = |taint: &str| {
        let bad = || KubeletError::Flag("register-with-taints", taint.into());
        let (rest, effect) = taint.rsplit_once(':').ok_or_else(bad)?;
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        Ok((key.trim().to_owned(), value.to_owned(), effect.trim().to_owned()))
    };
    text.split(',').filter(|taint| !taint.trim().is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn merged(words: &str, file: Option<&str>) -> Config {
        let flags =
            Flags::try_parse_from(format!("kubelet --kubeconfig=/k {words}").split_whitespace()).unwrap();
        Config::merge(flags, file.map(|text| serde_yaml_ng::from_str(text).unwrap()), "Node-1").unwrap()
    }

    #[test]
    fn bare_flags_are_wide_open_and_a_file_closes_them() {
        let legacy = merged("", None);
        assert_eq!((legacy.anonymous, legacy.webhook_authentication), (Anonymous::Allowed, false));
        assert_eq!(legacy.authorization, AuthorizationMode::AlwaysAllow);
        assert_eq!(legacy.read_only.map(|address| address.port()), Some(10255));
        let closed = merged("", Some("kind: KubeletConfiguration"));
        assert_eq!((closed.anonymous, closed.webhook_authentication), (Anonymous::Refused, true));
        assert_eq!((closed.authorization, closed.read_only), (AuthorizationMode::Webhook, None));
        assert_eq!(closed.node_name, "node-1");
    }

    #[test]
    fn flags_win_over_the_file_and_unused_fields_are_named_once_they_say_something() {
        let file = "authentication: {anonymous: {enabled: false}}\nsyncFrequency: 0s\nevictionHard: {memory.available: 1Gi}";
        let config = merged("--anonymous-auth=true --node-labels=a=b,c=", Some(file));
        assert_eq!(config.anonymous, Anonymous::Allowed);
        assert_eq!(config.ignored, ["evictionHard"]);
        assert_eq!(config.node_labels.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn a_zero_life_in_the_file_is_the_default_and_configz_says_what_holds() {
        let file =
            "authentication: {webhook: {cacheTTL: 0s}}\nauthorization: {webhook: {cacheUnauthorizedTTL: 1s}}";
        let config = merged("--authorization-webhook-cache-authorized-ttl=10s", Some(file));
        assert_eq!(config.ttls.token.as_secs(), 120);
        assert_eq!((config.ttls.allowed.as_secs(), config.ttls.denied.as_secs()), (10, 1));
        let shown = config.configz();
        assert_eq!(shown["kubeletconfig"]["authorization"]["webhook"]["cacheUnauthorizedTTL"], "1s");
        assert_eq!(shown["kubeletconfig"]["authentication"]["webhook"]["cacheTTL"], "2m0s");
        assert_eq!(shown["kubeletconfig"]["containerLogMaxSize"], "10Mi");
    }

    #[test]
    fn a_serving_certificate_comes_from_files_before_it_is_asked_for() {
        let both = "serverTLSBootstrap: true\ntlsCertFile: /c\ntlsPrivateKeyFile: /k";
        assert!(matches!(merged("", Some(both)).serving, Serving::Files { .. }));
        assert_eq!(merged("", Some("serverTLSBootstrap: true")).serving, Serving::Bootstrap);
        let gated = "--feature-gates=RotateKubeletServerCertificate=false";
        assert_eq!(merged(gated, Some("serverTLSBootstrap: true")).serving, Serving::SelfSigned);
    }
}
