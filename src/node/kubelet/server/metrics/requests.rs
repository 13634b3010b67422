//! How many requests came, of which kind (`kubelet_http_requests_total` and its kin).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::node::page::Page;
use axum::http::Method;

/// Upstream's buckets of `kubelet_http_requests_duration_seconds` (Prometheus' usual ones).
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Methods and paths with a name of their own; all else is `other`.
const METHODS: &[&str] = &["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"];
const PATHS: &[&str] = &[
    "healthz",
    "pods",
    "stats",
    "metrics",
    "metrics/cadvisor",
    "metrics/probes",
    "metrics/resource",
    "run",
    "exec",
    "attach",
    "portForward",
    "containerLogs",
    "configz",
    "runningpods",
    "checkpoint",
    "logs",
    "debug",
    "flagz",
    "statusz",
];
/// Upstream asks for `portforward` here and so never finds `portForward`; kept.
const LONG_RUNNING: &[&str] = &["exec", "attach", "portforward", "debug"];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    long_running: bool,
    method: &'static str,
    path: &'static str,
    server: &'static str,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    inflight: i64,
    finished: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

/// The counts of this process.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<Kind, Count>>>);

/// A request on its way; counted as finished when it is dropped.
pub struct Underway {
    requests: Requests,
    kind: Kind,
    since: Instant,
}

impl Requests {
    /// `server` is `readwrite` or `readonly`.
    pub fn begin(&self, method: &Method, path: &str, server: &'static str) -> Underway {
        let path = bucket(path);
        let method = METHODS.iter().find(|known| **known == method.as_str()).copied().unwrap_or("other");
        let kind = Kind { long_running: LONG_RUNNING.contains(&path), method, path, server };
        self.with(&kind, |count| {
            count.total += 1;
            count.inflight += 1;
        });
        Underway { requests: self.clone(), kind, since: Instant::now() }
    }

    fn with(&self, kind: &Kind, change: impl FnOnce(&mut Count)) {
        let mut all = self.0.lock().expect("nothing panics while holding the lock");
        change(all.entry(kind.clone()).or_default());
    }

    fn end(&self, kind: &Kind, took: Duration) {
        let seconds = took.as_secs_f64();
        self.with(kind, |count| {
            count.inflight -= 1;
            count.finished += 1;
            count.seconds += seconds;
            for (limit, bucket) in BUCKETS.iter().zip(&mut count.buckets) {
                *bucket += u64::from(seconds <= *limit);
            }
        });
    }

    pub fn write(&self, page: &mut Page) {
        let all = self.0.lock().expect("nothing panics while holding the lock");
        let name = "kubelet_http_inflight_requests";
        page.family(name, "gauge", "[ALPHA] Number of the inflight http requests");
        all.iter().for_each(|(kind, count)| kind.sample(page, name, None, count.inflight));
        let name = "kubelet_http_requests_duration_seconds";
        page.family(name, "histogram", "[ALPHA] Duration in seconds to serve http requests");
        for (kind, count) in all.iter() {
            let bucket = format!("{name}_bucket");
            for (limit, below) in BUCKETS.iter().zip(&count.buckets) {
                kind.sample(page, &bucket, Some(&limit.to_string()), below);
            }
            kind.sample(page, &bucket, Some("+Inf"), count.finished);
            kind.sample(page, &format!("{name}_sum"), None, count.seconds);
            kind.sample(page, &format!("{name}_count"), None, count.finished);
        }
        let name = "kubelet_http_requests_total";
        page.family(name, "counter", "[ALPHA] Number of the http requests received since the server started");
        all.iter().for_each(|(kind, count)| kind.sample(page, name, None, count.total));
    }
}

impl Kind {
    fn sample(&self, page: &mut Page, name: &str, limit: Option<&str>, value: impl std::fmt::Display) {
        let long = if self.long_running { "true" } else { "false" };
        let mut labels = vec![
            ("long_running", long),
            ("method", self.method),
            ("path", self.path),
            ("server_type", self.server),
        ];
        labels.extend(limit.map(|limit| ("le", limit)));
        page.sample(name, &labels, value);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.requests.end(&self.kind, self.since.elapsed());
    }
}

/// The first part of a path, of metrics the first two.
fn bucket(path: &str) -> &'static str {
    let mut parts = path.trim_start_matches('/').splitn(3, '/');
    let first = parts.next().unwrap_or_default();
    let root = match (first, parts.next()) {
        ("metrics", Some(second)) => format!("metrics/{second}"),
        _ => first.to_owned(),
    };
    PATHS.iter().find(|known| **known == root).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_makes_a_new_series_by_asking_for_odd_things() {
        assert_eq!(bucket("/metrics/cadvisor"), "metrics/cadvisor");
        assert_eq!(bucket("/metrics/evil"), "other");
        assert_eq!(bucket("/exec/a/b/c"), "exec");
        let requests = Requests::default();
        drop(requests.begin(&Method::from_bytes(b"EVIL").unwrap(), "/evil", "readwrite"));
        let all = requests.0.lock().unwrap();
        let (kind, count) = all.first_key_value().unwrap();
        assert_eq!((kind.method, kind.path), ("other", "other"));
        assert_eq!((count.total, count.inflight, count.finished), (1, 0, 1));
    }
}
