//! kube-proxy's metrics (:10249/metrics), under upstream's names (`pkg/proxy/metrics/metrics.go`).
//!
//! Each value is counted or measured here. Left out: the families of the other proxy modes, and the
//! reconciler of connections, whose work is done as part of a sync.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use jiff::Timestamp;

use super::ruleset::Ruleset;
use crate::node::page::{self, Page};

const PREFIX: &str = "kubeproxy_sync_proxy_rules";
const FAMILY: (&str, &str) = ("ip_family", "IPv4");

/// No more changes are timed while the kernel takes none.
const MOST_WAITING: usize = 4096;

/// The counts of this process.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    /// Changes from before are not told as latencies.
    started: Timestamp,
    full: Histogram,
    partial: Histogram,
    all: Histogram,
    programming: Histogram,
    /// When what now waits began, as the endpoint controller wrote it.
    triggers: Vec<Timestamp>,
    services: Changes,
    endpoints: Changes,
    synced: Option<Timestamp>,
    queued: Option<Timestamp>,
    failures: u64,
    without_local: (usize, usize),
    /// By the port's path and the status it answered.
    probes: BTreeMap<(&'static str, u16), u64>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Changes {
    total: u64,
    pending: u64,
}

impl Changes {
    fn one(&mut self) {
        self.total += 1;
        self.pending += 1;
    }
}

/// Values sorted into buckets of rising limits.
#[derive(Debug)]
struct Histogram {
    limits: Vec<f64>,
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(limits: Vec<f64>) -> Self {
        Self { buckets: vec![0; limits.len()], limits, count: 0, sum: 0.0 }
    }

    fn observe(&mut self, value: f64) {
        for (limit, bucket) in self.limits.iter().zip(&mut self.buckets) {
            *bucket += u64::from(value <= *limit);
        }
        self.count += 1;
        self.sum += value;
    }

    fn write(&self, page: &mut Page, name: &str, help: &str) {
        page.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (limit, count) in self.limits.iter().zip(&self.buckets) {
            page.sample(&bucket, &[FAMILY, ("le", &limit.to_string())], count);
        }
        page.sample(&bucket, &[FAMILY, ("le", "+Inf")], self.count);
        page.sample(&format!("{name}_sum"), &[FAMILY], self.sum);
        page.sample(&format!("{name}_count"), &[FAMILY], self.count);
    }
}

/// From a millisecond to sixteen seconds, doubling.
fn doubling() -> Vec<f64> {
    (0..15).map(|power| 0.001 * 2f64.powi(power)).collect()
}

/// From a quarter of a second to five minutes, ever wider.
fn widening() -> Vec<f64> {
    let steps = (1..60).map(f64::from).chain((60..120).step_by(5).map(f64::from));
    [0.25, 0.5].into_iter().chain(steps).chain((120..=300).step_by(30).map(f64::from)).collect()
}

impl Default for Metrics {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Counts {
            started: Timestamp::now(),
            full: Histogram::new(doubling()),
            partial: Histogram::new(doubling()),
            all: Histogram::new(doubling()),
            programming: Histogram::new(widening()),
            triggers: Vec::new(),
            services: Changes::default(),
            endpoints: Changes::default(),
            synced: None,
            queued: None,
            failures: 0,
            without_local: (0, 0),
            probes: BTreeMap::new(),
        })))
    }
}

impl Metrics {
    fn with<T>(&self, look: impl FnOnce(&mut Counts) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn service_changed(&self) {
        self.with(|counts| counts.services.one());
    }

    /// `trigger` is what the slice says of when its change began.
    pub fn endpoints_changed(&self, trigger: Option<&str>) {
        let trigger = trigger.and_then(|text| text.parse::<Timestamp>().ok());
        self.with(|counts| {
            counts.endpoints.one();
            if counts.triggers.len() < MOST_WAITING {
                counts.triggers.extend(trigger.filter(|at| *at > counts.started));
            }
        });
    }

    pub fn queued(&self) {
        self.with(|counts| counts.queued = Some(Timestamp::now()));
    }

    /// The kernel did not take the rules.
    pub fn failed(&self) {
        self.with(|counts| counts.failures += 1);
    }

    /// Rules and API agree again; `all` is told of a table that was written as a whole.
    pub fn synced(&self, ruleset: &Ruleset, all: bool, took: Duration) {
        let now = Timestamp::now();
        self.with(|counts| {
            let seconds = took.as_secs_f64();
            let kind = if all { &mut counts.full } else { &mut counts.partial };
            kind.observe(seconds);
            counts.all.observe(seconds);
            for trigger in std::mem::take(&mut counts.triggers) {
                counts.programming.observe(trigger.duration_until(now).as_secs_f64().max(0.0));
            }
            (counts.services.pending, counts.endpoints.pending) = (0, 0);
            counts.synced = Some(now);
            counts.without_local = without_local(ruleset);
        });
    }

    /// What a health port was asked and answered.
    pub fn probed(&self, family: &'static str, status: StatusCode) {
        self.with(|counts| *counts.probes.entry((family, status.as_u16())).or_default() += 1);
    }

    pub fn page(&self) -> Page {
        let mut page = Page::default();
        self.with(|counts| counts.write(&mut page));
        page::build(&mut page, "v1.36.2");
        page::process(&mut page);
        page
    }
}

/// Services whose policy is Local and that have endpoints, none of them here: by the internal policy and by
/// the external one.
fn without_local(ruleset: &Ruleset) -> (usize, usize) {
    let lacking =
        || ruleset.ports.values().filter(|port| !port.endpoints.is_empty() && port.local.is_empty());
    let internal = lacking().filter(|port| port.internal_local).count();
    (internal, lacking().filter(|port| port.external_local && port.is_external()).count())
}

impl Counts {
    fn write(&self, page: &mut Page) {
        let help = "[ALPHA] In Cluster Network Programming Latency in seconds";
        self.programming.write(page, "kubeproxy_network_programming_duration_seconds", help);
        for (name, which) in
            [("kubeproxy_proxy_healthz_total", "healthz"), ("kubeproxy_proxy_livez_total", "livez")]
        {
            page.family(name, "counter", &format!("[ALPHA] Cumulative proxy {which} HTTP status"));
            for ((_, status), count) in self.probes.iter().filter(|((path, _), _)| *path == which) {
                page.sample(name, &[("code", &status.to_string())], count);
            }
        }
        let help = "[ALPHA] SyncProxyRules latency in seconds";
        self.full.write(
            page,
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            &format!("{help} for full resyncs"),
        );
        self.partial.write(
            page,
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            &format!("{help} for partial resyncs"),
        );
        self.all.write(page, "kubeproxy_sync_proxy_rules_duration_seconds", help);
        self.write_changes(page);
        self.write_times(page);
        let (internal, external) = self.without_local;
        let name = format!("{PREFIX}_no_local_endpoints_total");
        page.family(
            &name,
            "gauge",
            "[ALPHA] Number of services with a Local traffic policy and no endpoints",
        );
        page.sample(&name, &[FAMILY, ("traffic_policy", "external")], external);
        page.sample(&name, &[FAMILY, ("traffic_policy", "internal")], internal);
    }

    fn write_changes(&self, page: &mut Page) {
        for (word, label, changes) in
            [("endpoint", "Endpoint", self.endpoints), ("service", "Service", self.services)]
        {
            page.single(
                &format!("{PREFIX}_{word}_changes_pending"),
                "gauge",
                &format!("[ALPHA] Pending proxy rules {label} changes"),
                changes.pending,
            );
            page.single(
                &format!("{PREFIX}_{word}_changes_total"),
                "counter",
                &format!("[ALPHA] Cumulative proxy rules {label} changes"),
                changes.total,
            );
        }
    }

    fn write_times(&self, page: &mut Page) {
        let mut one = |name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
            let name = format!("{PREFIX}_{name}");
            page.family(&name, kind, help);
            page.sample(&name, &[FAMILY], value);
        };
        let seconds = |at: Option<Timestamp>| at.map_or(0.0, |at| at.as_duration().as_secs_f64());
        one(
            "last_queued_timestamp_seconds",
            "gauge",
            "[ALPHA] The last time a sync of proxy rules was queued",
            &seconds(self.queued),
        );
        one(
            "last_timestamp_seconds",
            "gauge",
            "[ALPHA] The last time proxy rules were successfully synced",
            &seconds(self.synced),
        );
        let help = "[ALPHA] Cumulative proxy nftables sync failures";
        one("nftables_sync_failures_total", "counter", help, &self.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_every_bucket_that_holds_it() {
        let mut histogram = Histogram::new(doubling());
        histogram.observe(0.0015);
        histogram.observe(100.0);
        assert_eq!((histogram.buckets[0], histogram.buckets[1], histogram.buckets[14]), (0, 1, 1));
        let limits = widening();
        assert_eq!((limits.len(), limits[2], limits[61], limits.last()), (80, 1.0, 65.0 - 5.0, Some(&300.0)));
    }

    #[test]
    fn changes_wait_until_they_are_written_and_say_how_long_it_took() {
        let metrics = Metrics::default();
        metrics.endpoints_changed(Some("2020-01-01T00:00:00Z"));
        let soon = Timestamp::now() + jiff::SignedDuration::from_secs(1);
        metrics.endpoints_changed(Some(&soon.to_string()));
        metrics.service_changed();
        let text = metrics.page().to_string();
        assert!(text.contains("\nkubeproxy_sync_proxy_rules_endpoint_changes_pending 2\n"), "{text}");
        metrics.synced(&super::super::tests::ruleset_of([]), true, Duration::from_millis(3));
        let text = metrics.page().to_string();
        for line in [
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 1",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.002\"} 0",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.004\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 0",
            "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
        }
    }
}
