//! What the agent counts, under upstream's names (`pkg/agent/metrics`).

use std::sync::Arc;

use crate::tunnel::konnectivity::metrics::{Counters, Gauge, Latency, Page};
use crate::tunnel::konnectivity::packet::Message;

#[derive(Debug, Default)]
pub struct Counts {
    pub dials: Latency,
    /// Streams to servers.
    pub servers: Arc<Gauge>,
    pub known_servers: Gauge,
    /// Connections to destinations.
    pub open: Arc<Gauge>,
    packets: Counters,
    dial_failures: Counters,
    stalled: Counters,
    lease_lists: Counters,
}

impl Counts {
    pub fn packet(&self, segment: &'static str, message: &Message) {
        self.packets.up(&format!("segment=\"{segment}\",packet_type=\"{}\"", message.name()));
    }

    pub fn dial_failure(&self, reason: &str) {
        self.dial_failures.up(&format!("reason=\"{reason}\""));
    }

    /// A destination stopped reading.
    pub fn stalled(&self) {
        self.stalled.up("");
    }

    pub fn lease_list(&self, code: u16) {
        self.lease_lists.up(&format!("http_status_code=\"{code}\""));
    }

    pub fn page(&self) -> String {
        let mut page = Page::new("konnectivity_network_proxy_agent_");
        page.latency(
            "dial_duration_seconds",
            "Latency of dial to the remote endpoint in seconds",
            &self.dials,
        )
        .counters(
            "endpoint_dial_failure_total",
            "Number of failures dialing the remote endpoint, by reason",
            &self.dial_failures,
        )
        .gauge("open_server_connections", "Current number of open server connections", self.servers.get())
        .gauge(
            "known_server_count",
            "Current number of servers the agent is aware of",
            self.known_servers.get(),
        )
        .gauge("open_endpoint_connections", "Current number of open endpoint connections", self.open.get())
        .counters(
            "stream_packets_total",
            "Count of packets processed, by segment and packet type",
            &self.packets,
        )
        .counters("lease_lists_total", "Count of server leases list calls, by status", &self.lease_lists)
        .counters(
            "stalled_tunnels_total",
            "Count of connections closed because their destination stood still (minilab's own)",
            &self.stalled,
        );
        page.finish()
    }
}
