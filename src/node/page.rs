//! One page of metrics in Prometheus' text format, and what every role of upstream's tells there.

use std::fmt::{self, Display, Write};
use std::fs;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::node::kubelet::server::stats::proc::{self, boot_seconds};

/// A page as it grows.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Begins a family: its samples come next.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One value; labels in the order they are given.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.line(format_args!("{open}{label}=\"{text}\""));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        self.line(format_args!("{close} {value}\n"));
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.write_fmt(text).expect("a String takes any text");
    }
}

impl fmt::Display for Page {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Which build this is (`kubernetes_build_info`).
pub fn build(page: &mut Page, version: &str) {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let help = "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree \
                state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it \
                is running.";
    page.family("kubernetes_build_info", "gauge", help);
    let labels = [
        ("compiler", "rustc"),
        ("git_version", version),
        ("major", major),
        ("minor", minor),
        ("platform", "linux"),
    ];
    page.sample("kubernetes_build_info", &labels, 1);
}

/// What Prometheus' client libraries tell of the process itself (`process_*`), read from /proc/self.
pub fn process(page: &mut Page) {
    let Some(stat) = proc::Stat::read(std::process::id()) else { return };
    let help = "Total user and system CPU time spent in seconds.";
    page.single("process_cpu_seconds_total", "counter", help, proc::seconds(stat.own_ticks));
    page.single(
        "process_max_fds",
        "gauge",
        "Maximum number of open file descriptors.",
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map_or(0, |(soft, _)| soft),
    );
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    page.single("process_open_fds", "gauge", "Number of open file descriptors.", open);
    page.single(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory size in bytes.",
        proc::Memory::read(std::process::id()).map_or(0, |memory| memory.resident),
    );
    page.single(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
        boot_seconds() + proc::seconds(stat.started_ticks),
    );
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")], self.0)
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_prometheus_writes_it() {
        let mut page = Page::default();
        page.family("up", "gauge", "Help.");
        page.sample("up", &[("a", "x\"y"), ("b", "z")], 1);
        page.single("down", "counter", "Other.", 0.5);
        assert_eq!(
            page.0,
            "# HELP up Help.\n# TYPE up gauge\nup{a=\"x\\\"y\",b=\"z\"} 1\n# HELP down Other.\n# TYPE down counter\n\
             down 0.5\n"
        );
    }
}
