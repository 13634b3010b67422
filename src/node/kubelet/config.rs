//! The kubelet's configuration: flags over `KubeletConfiguration` (v1beta1) over defaults.
//!
//! There are two default sets, as upstream: without `--config` the old command line's wide open one
//! (`applyLegacyDefaults`), with it the closed one of the file format. Fields that mean nothing here are
//! accepted with a warning.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::KubeletError;
use super::flags::Flags;
use crate::client::delegated::Anonymous;

/// `KubeletConfiguration` as it is on disk and in `/configz`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct File {
    pub api_version: String,
    pub kind: String,
    pub static_pod_path: Option<String>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub read_only_port: Option<u16>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    pub rotate_certificates: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: Option<bool>,
    pub authentication: FileAuthentication,
    pub authorization: FileAuthorization,
    pub enable_debugging_handlers: Option<bool>,
    pub healthz_port: Option<u16>,
    pub healthz_bind_address: Option<IpAddr>,
    pub cluster_domain: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<String>>,
    pub max_pods: Option<u32>,
    pub register_node: Option<bool>,
    pub pod_logs_dir: Option<PathBuf>,
    /// What this kubelet does not implement.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FileAuthentication {
    pub x509: FileX509,
    pub webhook: FileToggle,
    pub anonymous: FileToggle,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileX509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileToggle {
    pub enabled: Option<bool>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FileAuthorization {
    pub mode: Option<String>,
}

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
    pub listen: SocketAddr,
    pub read_only: Option<SocketAddr>,
    pub healthz: Option<SocketAddr>,
    pub anonymous: Anonymous,
    pub webhook_authentication: bool,
    pub client_ca: Option<PathBuf>,
    pub authorization: AuthorizationMode,
    pub rotate_certificates: bool,
    pub serving: Serving,
    pub debugging_handlers: bool,
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    pub max_pods: u32,
    /// The file's fields that have no effect here.
    pub ignored: Vec<String>,
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
        let on = flags.switches;
        let address = flags.address.or(file.address).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let port = |port: u16, address| (port != 0).then(|| SocketAddr::new(address, port));
        let healthz_address = flags
            .healthz_bind_address
            .or(file.healthz_bind_address)
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let anonymous =
            on.anonymous_auth.or(file.authentication.anonymous.enabled).unwrap_or(defaults.anonymous);
        let mode = flags.authorization_mode.or(file.authorization.mode);
        let serving = match (
            flags.tls_cert_file.or(file.tls_cert_file),
            flags.tls_private_key_file.or(file.tls_private_key_file),
            on.rotate_server_certificates.or(file.server_tls_bootstrap).unwrap_or(false),
        ) {
            (Some(cert), Some(key), _) => Serving::Files { cert, key },
            (_, _, true) => Serving::Bootstrap,
            (_, _, false) => Serving::SelfSigned,
        };
        Ok(Self {
            node_name: match flags.hostname_override.trim() {
                "" => hostname.trim().to_lowercase(),
                name => name.to_lowercase(),
            },
            node_ip: flags.node_ip,
            node_labels: labels(&flags.node_labels)?,
            taints: taints(&flags.register_with_taints)?,
            register_node: on.register_node.or(file.register_node).unwrap_or(true),
            kubeconfig: flags.kubeconfig.ok_or(KubeletError::NoKubeconfig)?,
            bootstrap_kubeconfig: flags.bootstrap_kubeconfig,
            cert_dir: flags.cert_dir,
            root_dir: flags.root_dir,
            pod_logs_dir: file.pod_logs_dir.unwrap_or_else(|| "/var/log/pods".into()),
            listen: SocketAddr::new(
                address,
                flags.port.or(file.port).filter(|port| *port != 0).unwrap_or(10250),
            ),
            read_only: port(
                flags.read_only_port.or(file.read_only_port).unwrap_or(defaults.read_only_port),
                address,
            ),
            healthz: port(flags.healthz_port.or(file.healthz_port).unwrap_or(10248), healthz_address),
            anonymous: if anonymous { Anonymous::Allowed } else { Anonymous::Refused },
            webhook_authentication: on
                .authentication_token_webhook
                .or(file.authentication.webhook.enabled)
                .unwrap_or(defaults.webhook),
            client_ca: flags.client_ca_file.or(file.authentication.x509.client_ca_file),
            authorization: match mode.as_deref() {
                None | Some("") => defaults.authorization,
                Some("AlwaysAllow") => AuthorizationMode::AlwaysAllow,
                Some("Webhook") => AuthorizationMode::Webhook,
                Some(other) => return Err(KubeletError::AuthorizationMode(other.into())),
            },
            rotate_certificates: on.rotate_certificates.or(file.rotate_certificates).unwrap_or(false),
            serving,
            debugging_handlers: on
                .enable_debugging_handlers
                .or(file.enable_debugging_handlers)
                .unwrap_or(true),
            cluster_dns: if flags.cluster_dns.is_empty() {
                file.cluster_dns.unwrap_or_default()
            } else {
                flags.cluster_dns
            },
            cluster_domain: flags.cluster_domain.or(file.cluster_domain).unwrap_or_default(),
            max_pods: flags.max_pods.or(file.max_pods).unwrap_or(110),
            ignored: file
                .rest
                .iter()
                .filter(|(_, value)| says_something(value))
                .map(|(key, _)| key.clone())
                .collect(),
        })
    }

    /// `/configz`: the settings in the file format.
    pub fn configz(&self) -> serde_json::Value {
        let file = File {
            api_version: String::new(),
            kind: String::new(),
            static_pod_path: None,
            address: Some(self.listen.ip()),
            port: Some(self.listen.port()),
            read_only_port: self.read_only.map(|address| address.port()),
            rotate_certificates: Some(self.rotate_certificates),
            server_tls_bootstrap: Some(self.serving == Serving::Bootstrap),
            authentication: FileAuthentication {
                x509: FileX509 { client_ca_file: self.client_ca.clone() },
                webhook: FileToggle { enabled: Some(self.webhook_authentication) },
                anonymous: FileToggle { enabled: Some(self.anonymous == Anonymous::Allowed) },
            },
            authorization: FileAuthorization {
                mode: Some(match self.authorization {
                    AuthorizationMode::AlwaysAllow => "AlwaysAllow".into(),
                    AuthorizationMode::Webhook => "Webhook".into(),
                }),
            },
            enable_debugging_handlers: Some(self.debugging_handlers),
            healthz_port: self.healthz.map(|address| address.port()),
            healthz_bind_address: self.healthz.map(|address| address.ip()),
            cluster_domain: Some(self.cluster_domain.clone()),
            cluster_dns: Some(self.cluster_dns.clone()),
            max_pods: Some(self.max_pods),
            register_node: Some(self.register_node),
            pod_logs_dir: Some(self.pod_logs_dir.clone()),
            ..File::default()
        };
        let mut value = serde_json::to_value(file).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, value| !value.is_null() && *value != "");
        }
        serde_json::json!({ "kubeletconfig": value })
    }
}

/// The part of the defaults in which the two sets differ.
struct Defaults {
    anonymous: bool,
    webhook: bool,
    authorization: AuthorizationMode,
    read_only_port: u16,
}

impl Defaults {
    const CLOSED: Self = Self {
        anonymous: false,
        webhook: true,
        authorization: AuthorizationMode::Webhook,
        read_only_port: 0,
    };
    const LEGACY: Self = Self {
        anonymous: true,
        webhook: false,
        authorization: AuthorizationMode::AlwaysAllow,
        read_only_port: 10255,
    };
}

/// Zero values (`0s`, empty, null) are how kubeadm writes "the default".
fn says_something(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => false,
        serde_json::Value::String(text) => !matches!(text.as_str(), "" | "0s" | "cgroupfs"),
        serde_json::Value::Object(fields) => fields.values().any(says_something),
        serde_json::Value::Array(items) => !items.is_empty(),
        serde_json::Value::Bool(on) => *on,
        serde_json::Value::Number(number) => number.as_f64() != Some(0.0),
    }
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
}
