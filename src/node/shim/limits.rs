//! Memory and CPU limits by cgroups, where this node was given any.
//!
//! A lab of an ordinary user usually has none; then limits are not enforced, and [`support`] says so in
//! words for `describe node`. Left out: CPU shares from requests.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::spec::Limits;

const MOUNT: &str = "/sys/fs/cgroup";
const PERIOD_US: u64 = 100_000;

/// What enforces limits here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    CgroupV2,
    CgroupV1,
    None,
}

impl fmt::Display for Support {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Support::CgroupV2 => "cgroup v2",
            Support::CgroupV1 => "cgroup v1",
            Support::None => "not enforced (no cgroup of this machine is writable here)",
        })
    }
}

/// Finds out by trying.
pub fn support() -> Support {
    let probe = format!("minilab-probe-{}", std::process::id());
    match Group::make(&probe) {
        Some(group) => {
            let support = group.support;
            group.remove();
            support
        }
        None => Support::None,
    }
}

/// One container's cgroup (v2), or its directories in several hierarchies (v1).
#[derive(Debug)]
pub struct Group {
    support: Support,
    directories: Vec<PathBuf>,
}

impl Group {
    /// Makes a container's group with its limits; `None` where it has no limits or nothing enforces them.
    pub fn with(id: &str, limits: &Limits) -> io::Result<Option<Group>> {
        if *limits == Limits::default() {
            return Ok(None);
        }
        let Some(group) = Group::make(&format!("minilab-{id}")) else { return Ok(None) };
        if let Some(bytes) = limits.memory_bytes {
            group.set("memory.max", "memory.limit_in_bytes", &bytes.to_string())?;
        }
        if let Some(millis) = limits.cpu_millis {
            let quota = (millis * PERIOD_US / 1000).max(1000);
            match group.support {
                Support::CgroupV2 => group.set("cpu.max", "", &format!("{quota} {PERIOD_US}"))?,
                _ => group.set("", "cpu.cfs_quota_us", &quota.to_string())?,
            }
        }
        Ok(Some(group))
    }

    fn make(name: &str) -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mut directories = Vec::new();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            match controllers {
                "" => {
                    let directory = Path::new(MOUNT).join(path).join(name);
                    if fs::create_dir(&directory).is_ok() {
                        if directory.join("memory.max").exists() {
                            return Some(Group { support: Support::CgroupV2, directories: vec![directory] });
                        }
                        // Without controllers it limits nothing.
                        let _ = fs::remove_dir(&directory);
                    }
                }
                "memory" | "cpu" | "cpu,cpuacct" => {
                    let directory = Path::new(MOUNT).join(controllers).join(path).join(name);
                    directories.extend(fs::create_dir(&directory).is_ok().then_some(directory));
                }
                _ => {}
            }
        }
        (!directories.is_empty()).then_some(Group { support: Support::CgroupV1, directories })
    }

    fn set(&self, v2: &str, v1: &str, value: &str) -> io::Result<()> {
        let file = if self.support == Support::CgroupV2 { v2 } else { v1 };
        match self.directories.iter().map(|directory| directory.join(file)).find(|path| path.is_file()) {
            Some(path) => fs::write(path, value),
            None => Ok(()),
        }
    }

    /// Moves the calling process in; its children follow.
    pub fn enter(&self) -> io::Result<()> {
        self.directories.iter().try_for_each(|directory| fs::write(directory.join("cgroup.procs"), "0"))
    }

    /// Whether the kernel killed a process in it for want of memory.
    pub fn out_of_memory(&self) -> bool {
        let counts = |text: String| {
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        };
        let files = ["memory.events", "memory.oom_control"];
        let paths = self.directories.iter().flat_map(|directory| files.map(|file| directory.join(file)));
        paths.filter_map(|path| fs::read_to_string(path).ok()).any(counts)
    }

    /// Removes it, once its processes are gone.
    pub fn remove(&self) {
        for directory in &self.directories {
            // Processes of a shared pid namespace may outlive their container for a moment; the directory
            // is then left to the lab's end.
            let _ = fs::remove_dir(directory);
        }
    }
}
