//! What Prometheus' client libraries tell of the process itself (`process_*`), read from /proc/self.

use std::fs;

use super::page::Page;
use crate::node::kubelet::server::stats::proc::{self, boot_seconds};

pub fn write(page: &mut Page) {
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
