//! `/configz`: what holds, in the file's format.

use serde_json::{Value, json};

use super::file::{self, File};
use super::{AuthorizationMode, Config, Serving};
use crate::api::go_duration;
use crate::client::delegated::Anonymous;

impl Config {
    /// The settings in the file format, defaults filled in.
    pub fn configz(&self) -> Value {
        let (cert, key) = match &self.serving {
            Serving::Files { cert, key } => (Some(cert.clone()), Some(key.clone())),
            Serving::SelfSigned | Serving::Bootstrap => (None, None),
        };
        let life = |duration| Some(go_duration::format(duration));
        let file = File {
            enable_server: Some(self.server),
            static_pod_path: self.static_pods.clone(),
            file_check_frequency: life(self.file_check),
            address: Some(self.listen.ip()),
            port: Some(self.listen.port()),
            read_only_port: self.read_only.map(|address| address.port()),
            tls_cert_file: cert,
            tls_private_key_file: key,
            rotate_certificates: Some(self.rotate_certificates),
            server_tls_bootstrap: Some(self.serving == Serving::Bootstrap),
            authentication: self.authentication_file(),
            authorization: self.authorization_file(),
            enable_debugging_handlers: Some(self.handlers.debugging),
            enable_profiling_handler: Some(self.handlers.profiling),
            enable_debug_flags_handler: Some(self.handlers.debug_flags),
            enable_system_log_handler: Some(self.handlers.system_log),
            enable_system_log_query: Some(self.handlers.system_log_query),
            healthz_port: self.healthz.map(|address| address.port()),
            healthz_bind_address: self.healthz.map(|address| address.ip()),
            cluster_domain: Some(self.cluster_domain.clone()),
            cluster_dns: Some(self.cluster_dns.clone()),
            streaming_connection_idle_timeout: life(self.stream_idle),
            allowed_unsafe_sysctls: Some(self.allowed_unsafe_sysctls.clone()).filter(|some| !some.is_empty()),
            max_pods: Some(self.max_pods),
            pod_pids_limit: Some(self.pod_pids.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1)),
            register_node: Some(self.register_node),
            feature_gates: Some(self.gates.set().clone()),
            container_log_max_size: Some(self.log_max_size.clone()),
            container_log_max_files: Some(self.log_max_files),
            container_log_monitor_interval: life(self.log_check),
            pod_logs_dir: Some(self.pod_logs_dir.clone()),
            ..File::default()
        };
        let mut value = serde_json::to_value(file).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, value| !value.is_null() && *value != "" && *value != json!({}));
        }
        json!({ "kubeletconfig": value })
    }

    fn authentication_file(&self) -> file::Authentication {
        file::Authentication {
            x509: file::X509 { client_ca_file: self.client_ca.clone() },
            webhook: file::WebhookAuthentication {
                enabled: Some(self.webhook_authentication),
                cache_ttl: Some(go_duration::format(self.ttls.token)),
            },
            anonymous: file::Toggle { enabled: Some(self.anonymous == Anonymous::Allowed) },
        }
    }

    fn authorization_file(&self) -> file::Authorization {
        file::Authorization {
            mode: Some(match self.authorization {
                AuthorizationMode::AlwaysAllow => "AlwaysAllow".into(),
                AuthorizationMode::Webhook => "Webhook".into(),
            }),
            webhook: file::WebhookAuthorization {
                cache_authorized_ttl: Some(go_duration::format(self.ttls.allowed)),
                cache_unauthorized_ttl: Some(go_duration::format(self.ttls.denied)),
            },
        }
    }
}
