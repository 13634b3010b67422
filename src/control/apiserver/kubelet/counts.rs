//! What is counted of the way to kubelets, under upstream's names (`apiserver/pkg/util/proxy/metrics`,
//! `registry/core/pod/rest/log.go`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// A family: its name and its help.
type Family = (&'static str, &'static str);

pub const TRANSLATED: Family = (
    "apiserver_stream_translator_requests_total",
    "Total number of requests that were handled by the StreamTranslatorProxy, which processes streaming RemoteCommand/V5",
);
pub const TUNNELLED: Family = (
    "apiserver_stream_tunnel_requests_total",
    "Total number of requests that were handled by the StreamTunnelProxy, which processes streaming PortForward/V2",
);
pub const ROUTED: Family = (
    "apiserver_websocket_streaming_requests_total",
    "Total number of WebSocket streaming requests (exec/attach/portforward) routed by the API server, labeled by \
     subresource and proxy_type. proxy_type is proxied_to_kubelet when the kubelet handles the request directly; \
     otherwise translated_at_apiserver.",
);
pub const TLS_FAILURES: Family = (
    "kube_apiserver_pod_logs_backend_tls_failure_total",
    "Total number of requests for pods/logs that failed due to kubelet server TLS verification",
);
pub const LOGS: Family = (
    "kube_apiserver_pod_logs_insecure_backend_total",
    "Total number of requests for pods/logs sliced by usage type: enforce_tls, skip_tls_allowed, skip_tls_denied",
);

/// Counters that are shown once they count.
#[derive(Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<Family, BTreeMap<String, u64>>>>);

impl Counts {
    /// One more with these labels, which are in the order of their names.
    pub fn add(&self, family: Family, labels: &[(&str, &str)]) {
        let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        // Nothing panics half-way through adding one.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(family).or_default().entry(labels).or_default() += 1;
    }

    /// In Prometheus' text format.
    pub fn page(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::new();
        for ((name, help), samples) in &*all {
            let _ = writeln!(page, "# HELP {name} [ALPHA] {help}\n# TYPE {name} counter");
            for (labels, count) in samples {
                let _ = writeln!(page, "{name}{labels} {count}");
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_shown_with_its_labels_once_it_counts() {
        let counts = Counts::default();
        assert_eq!(counts.page(), "");
        counts.add(TRANSLATED, &[("code", "200")]);
        counts.add(TRANSLATED, &[("code", "200")]);
        counts.add(TLS_FAILURES, &[]);
        let page = counts.page();
        assert!(page.contains("\napiserver_stream_translator_requests_total{code=\"200\"} 2\n"), "{page}");
        assert!(page.ends_with("\nkube_apiserver_pod_logs_backend_tls_failure_total 1\n"), "{page}");
    }
}
