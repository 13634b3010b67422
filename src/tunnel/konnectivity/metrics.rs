//! Counters under upstream's names, and the page that shows them in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one for as long as what it returns lives.
    pub fn held(self: &std::sync::Arc<Self>) -> Held {
        self.add(1);
        Held(std::sync::Arc::clone(self))
    }
}

/// One of a [`Gauge`].
#[derive(Debug)]
pub struct Held(std::sync::Arc<Gauge>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Counters that differ in their labels; `labels` is what stands between the braces.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<String, u64>>);

impl Counters {
    pub fn up(&self, labels: &str) {
        let mut all = self.0.lock().expect("nothing panics while holding the lock");
        match all.get_mut(labels) {
            Some(count) => *count += 1,
            None => drop(all.insert(labels.to_owned(), 1)),
        }
    }
}

/// A histogram with upstream's buckets for dials.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

const BUCKETS: [(f64, &str); 9] = [
    (0.0005, "0.0005"),
    (0.001, "0.001"),
    (0.005, "0.005"),
    (0.025, "0.025"),
    (0.1, "0.1"),
    (0.5, "0.5"),
    (2.5, "2.5"),
    (10.0, "10"),
    (30.0, "30"),
];

impl Latency {
    pub fn observe(&self, took: Duration) {
        for (bucket, (bound, _)) in self.buckets.iter().zip(BUCKETS) {
            if took.as_secs_f64() <= bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// A page of metrics under one prefix.
pub struct Page {
    prefix: &'static str,
    text: String,
}

impl Page {
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::new() }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let prefix = self.prefix;
        let _ = writeln!(self.text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}");
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: i64) -> &mut Self {
        self.head(name, "gauge", help);
        let _ = writeln!(self.text, "{}{name} {value}", self.prefix);
        self
    }

    /// Gauges that differ in one label.
    pub fn gauges(&mut self, name: &str, help: &str, values: &[(String, i64)]) -> &mut Self {
        self.head(name, "gauge", help);
        for (labels, value) in values {
            let _ = writeln!(self.text, "{}{name}{{{labels}}} {value}", self.prefix);
        }
        self
    }

    pub fn counters(&mut self, name: &str, help: &str, counters: &Counters) -> &mut Self {
        self.head(name, "counter", help);
        for (labels, value) in counters.0.lock().expect("nothing panics while holding the lock").iter() {
            let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            let _ = writeln!(self.text, "{}{name}{braces} {value}", self.prefix);
        }
        self
    }

    pub fn latency(&mut self, name: &str, help: &str, latency: &Latency) -> &mut Self {
        self.head(name, "histogram", help);
        let prefix = self.prefix;
        for (bucket, (_, bound)) in latency.buckets.iter().zip(BUCKETS) {
            let count = bucket.load(Ordering::Relaxed);
            let _ = writeln!(self.text, "{prefix}{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let count = latency.count.load(Ordering::Relaxed);
        let seconds = Duration::from_micros(latency.micros.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(
            self.text,
            "{prefix}{name}_bucket{{le=\"+Inf\"}} {count}\n{prefix}{name}_sum {seconds}\n{prefix}{name}_count {count}"
        );
        self
    }

    pub fn finish(self) -> String {
        let resident = crate::sys::process::resident_bytes().unwrap_or(0);
        format!(
            "{}# HELP process_resident_memory_bytes Resident memory size in bytes.\n\
             # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {resident}\n",
            self.text
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_prometheus_reads_it() {
        let (counters, latency) = (Counters::default(), Latency::default());
        counters.up("reason=\"no_agent\"");
        counters.up("reason=\"no_agent\"");
        latency.observe(Duration::from_millis(2));
        let mut page = Page::new("k_");
        page.gauge("open", "Open.", 3)
            .counters("fail", "Failed.", &counters)
            .latency("dial", "Dials.", &latency);
        let text = page.finish();
        for line in [
            "# TYPE k_open gauge",
            "k_open 3",
            "k_fail{reason=\"no_agent\"} 2",
            "k_dial_bucket{le=\"0.001\"} 0",
            "k_dial_bucket{le=\"0.005\"} 1",
            "k_dial_bucket{le=\"+Inf\"} 1",
            "k_dial_count 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
        }
    }
}
