//! `KubeletConfiguration` (v1beta1) as it is on disk and in `/configz`.
//!
//! Fields that mean nothing here land in `rest`, are kept and named once at the start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct File {
    pub api_version: String,
    pub kind: String,
    pub enable_server: Option<bool>,
    pub static_pod_path: Option<PathBuf>,
    pub file_check_frequency: Option<String>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub read_only_port: Option<u16>,
    pub tls_cert_file: Option<PathBuf>,
    pub tls_private_key_file: Option<PathBuf>,
    pub rotate_certificates: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: Option<bool>,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub enable_debugging_handlers: Option<bool>,
    pub enable_profiling_handler: Option<bool>,
    pub enable_debug_flags_handler: Option<bool>,
    pub enable_system_log_handler: Option<bool>,
    pub enable_system_log_query: Option<bool>,
    pub healthz_port: Option<u16>,
    pub healthz_bind_address: Option<IpAddr>,
    pub cluster_domain: Option<String>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Option<Vec<String>>,
    pub streaming_connection_idle_timeout: Option<String>,
    pub max_pods: Option<u32>,
    pub pod_pids_limit: Option<i64>,
    pub allowed_unsafe_sysctls: Option<Vec<String>>,
    pub register_node: Option<bool>,
    pub feature_gates: Option<BTreeMap<String, bool>>,
    pub container_log_max_size: Option<String>,
    pub container_log_max_files: Option<u32>,
    pub container_log_monitor_interval: Option<String>,
    pub pod_logs_dir: Option<PathBuf>,
    /// What this kubelet does not implement.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Authentication {
    pub x509: X509,
    pub webhook: WebhookAuthentication,
    pub anonymous: Toggle,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct X509 {
    #[serde(rename = "clientCAFile", skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookAuthentication {
    pub enabled: Option<bool>,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Toggle {
    pub enabled: Option<bool>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Authorization {
    pub mode: Option<String>,
    pub webhook: WebhookAuthorization,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: Option<String>,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: Option<String>,
}

impl File {
    /// The fields without effect here that say something.
    pub fn ignored(&self) -> Vec<String> {
        let spoken = self.rest.iter().filter(|(_, value)| says_something(value));
        spoken.map(|(key, _)| key.clone()).collect()
    }
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
