//! Processes as the kernel shows them: CPU time, memory, and to which container each belongs.
//!
//! Upstream's cAdvisor reads cgroups. A lab of an ordinary user has none to read, so here the processes of a
//! container are found by their mount namespace, which every container has for itself.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

/// A process's times, in clock ticks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stat {
    /// User and system time of the process.
    pub own_ticks: u64,
    /// The same with that of its ended children.
    pub ticks: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub started_ticks: u64,
}

impl Stat {
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name is in brackets and may hold anything, also brackets.
        let fields: Vec<u64> = text
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .skip(1)
            .map(|field| field.parse::<i64>().map_or(0, |number| u64::try_from(number).unwrap_or(0)))
            .collect();
        let field = |number: usize| fields.get(number - 4).copied();
        let (user, system) = (field(14)?, field(15)?);
        Some(Self {
            own_ticks: user + system,
            ticks: user + system + field(16)? + field(17)?,
            minor_faults: field(10)?,
            major_faults: field(12)?,
            started_ticks: field(22)?,
        })
    }
}

/// A process's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Memory {
    pub resident: u64,
    pub anonymous: u64,
    pub shared: u64,
}

impl Memory {
    pub fn read(pid: u32) -> Option<Self> {
        Some(Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    }

    fn parse(text: &str) -> Self {
        let row = |name: &str| {
            let row = text.lines().find_map(|row| row.strip_prefix(name));
            row.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Self { resident: row("VmRSS:"), anonymous: row("RssAnon:"), shared: row("RssShmem:") }
    }
}

/// What a group of processes uses together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub resident: u64,
    pub anonymous: u64,
    pub working_set: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
    pub processes: u64,
}

impl Usage {
    fn add(&mut self, stat: &Stat, memory: Memory) {
        self.cpu_nanos += nanos(stat.ticks);
        self.resident += memory.resident;
        self.anonymous += memory.anonymous;
        self.working_set += memory.anonymous + memory.shared;
        self.minor_faults += stat.minor_faults;
        self.major_faults += stat.major_faults;
        self.processes += 1;
    }

    pub fn join(&mut self, other: &Usage) {
        self.cpu_nanos += other.cpu_nanos;
        self.resident += other.resident;
        self.anonymous += other.anonymous;
        self.working_set += other.working_set;
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.processes += other.processes;
    }
}

/// Every process of the node, together and by mount namespace.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub node: Usage,
    pub(super) groups: BTreeMap<String, Usage>,
}

impl Snapshot {
    /// Looks at every process this kubelet sees: those of its own host.
    pub fn take() -> Self {
        let mut snapshot = Self::default();
        for pid in pids() {
            let (Some(stat), Some(memory)) = (Stat::read(pid), Memory::read(pid)) else { continue };
            snapshot.node.add(&stat, memory);
            if let Some(namespace) = mount_namespace(pid) {
                snapshot.groups.entry(namespace).or_default().add(&stat, memory);
            }
        }
        snapshot
    }

    /// What the container with this first process uses.
    pub fn container(&self, pid: u32) -> Option<&Usage> {
        self.groups.get(&mount_namespace(pid)?)
    }
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn mount_namespace(pid: u32) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// Bytes and errors of a network interface.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Interface {
    pub name: String,
    pub received: u64,
    pub receive_errors: u64,
    pub sent: u64,
    pub send_errors: u64,
}

/// The interfaces a process sees, `lo` aside.
pub fn interfaces(pid: u32) -> Vec<Interface> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    text.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

fn interface(row: &str) -> Option<Interface> {
    let (name, rest) = row.split_once(':')?;
    let fields: Vec<u64> = rest.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(Interface {
        name: name.trim().to_owned(),
        received: *fields.first()?,
        receive_errors: *fields.get(2)?,
        sent: *fields.get(8)?,
        send_errors: *fields.get(10)?,
    })
}

/// Seconds since 1970 at which this machine started.
pub fn boot_seconds() -> f64 {
    static BOOT: OnceLock<f64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let row = text.lines().find_map(|row| row.strip_prefix("btime "));
        row.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    })
}

fn ticks_a_second() -> u64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        ticks.and_then(|ticks| u64::try_from(ticks).ok()).filter(|ticks| *ticks > 0).unwrap_or(100)
    })
}

fn nanos(ticks: u64) -> u64 {
    ticks * (1_000_000_000 / ticks_a_second())
}

/// Clock ticks as seconds.
pub fn seconds(ticks: u64) -> f64 {
    std::time::Duration::from_nanos(nanos(ticks)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read_all_the_same() {
        let text = "12 (a) b (c) S 1 12 12 0 -1 4194304 100 200 3 4 50 60 7 8 20 0 1 0 999 1000 10 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.own_ticks, stat.ticks), (110, 125));
        assert_eq!((stat.minor_faults, stat.major_faults, stat.started_ticks), (100, 3, 999));
        assert_eq!(Stat::parse("nonsense"), None);
    }

    #[test]
    fn memory_and_interfaces_are_read_as_the_kernel_writes_them() {
        let memory = Memory::parse("Name:\tx\nVmRSS:\t    12 kB\nRssAnon:\t    8 kB\nRssShmem:\t 1 kB\n");
        assert_eq!(memory, Memory { resident: 12 << 10, anonymous: 8 << 10, shared: 1 << 10 });
        let row = "  eth0: 1000 10 1 0 0 0 0 0 2000 20 2 0 0 0 0 0";
        let read = interface(row).unwrap();
        assert_eq!((read.name.as_str(), read.received, read.sent, read.send_errors), ("eth0", 1000, 2000, 2));
        assert_eq!(interface("Inter-|   Receive"), None);
    }

    #[test]
    fn this_process_is_among_those_of_its_mount_namespace() {
        let snapshot = Snapshot::take();
        let own = snapshot.container(std::process::id()).unwrap();
        assert!(own.processes >= 1 && own.resident > 0 && snapshot.node.resident >= own.resident);
    }
}
