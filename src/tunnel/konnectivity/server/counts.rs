//! What the server counts, under upstream's names (`pkg/server/metrics`).

use std::sync::Arc;

use super::Shared;
use crate::tunnel::konnectivity::metrics::{Counters, Gauge, Latency, Page};
use crate::tunnel::konnectivity::packet::Message;

#[derive(Debug, Default)]
pub struct Counts {
    pub dials: Latency,
    pub established: Arc<Gauge>,
    pub pending_dials: Arc<Gauge>,
    pub proxies: Arc<Gauge>,
    pub connects: Arc<Gauge>,
    pub http: Arc<Gauge>,
    packets: Counters,
    dial_failures: Counters,
    stalled: Counters,
}

impl Counts {
    pub fn packet(&self, segment: &'static str, message: &Message) {
        self.packets.up(&format!("segment=\"{segment}\",packet_type=\"{}\"", message.name()));
    }

    pub fn dial_failure(&self, reason: &str) {
        self.dial_failures.up(&format!("reason=\"{reason}\""));
    }

    /// A tunnel closed because whoever should read stopped.
    pub fn stalled(&self, segment: &str) {
        self.stalled.up(&format!("segment=\"{segment}\""));
    }
}

impl Shared {
    pub fn metrics(&self) -> String {
        let counts = &self.counts;
        let ready = |strategy: &super::Strategy| {
            let count = i64::try_from(self.backends.count(*strategy)).unwrap_or(i64::MAX);
            (format!("proxy_strategy=\"{strategy}\""), count)
        };
        let ready: Vec<(String, i64)> = self.strategies.iter().map(ready).collect();
        let streams = [
            ("service_method=\"Proxy\"".to_owned(), counts.proxies.get()),
            ("service_method=\"Connect\"".to_owned(), counts.connects.get()),
        ];
        let first = ready.first().map_or(0, |(_, count)| *count);
        let mut page = Page::new("konnectivity_network_proxy_server_");
        page.latency(
            "dial_duration_seconds",
            "Latency of dial to the remote endpoint in seconds",
            &counts.dials,
        )
        .gauges(
            "grpc_connections",
            "Number of current grpc connections, partitioned by service method.",
            &streams,
        )
        .gauge("http_connections", "Number of current HTTP CONNECT connections", counts.http.get())
        .gauge(
            "ready_backend_connections",
            "Number of konnectivity agent connected to the proxy server",
            first,
        )
        .gauges("ready_backends", "Number of konnectivity agents of a proxy strategy", &ready)
        .gauge(
            "pending_backend_dials",
            "Current number of pending backend dial requests",
            counts.pending_dials.get(),
        )
        .gauge(
            "established_connections",
            "Current number of established end-to-end connections",
            counts.established.get(),
        )
        .counters(
            "dial_failure_count",
            "Number of dial failures observed, partitioned by reason",
            &counts.dial_failures,
        )
        .counters(
            "stream_packets_total",
            "Count of packets processed, by segment and packet type",
            &counts.packets,
        )
        .counters(
            "stalled_tunnels_total",
            "Count of tunnels closed because their reader stood still (minilab's own)",
            &counts.stalled,
        );
        page.finish()
    }
}
