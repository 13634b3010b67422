//! The machine's numbers for processes of a lab, found by walking `/proc`.
//!
//! A process has a pid in every pid namespace above its own. The supervisor knows only those from the lab
//! down; who asks stands outside and wants to `kill` or `strace`.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use super::protocol::Status;

/// Replaces the supervisor's numbers in a status by the machine's; unknown ones become None.
pub fn translate(supervisor: i32, status: &mut Status) {
    let depth = numbers(supervisor).len();
    let Some(lab) = namespace(supervisor, "user") else { return };
    // By pid namespace and pid in it, the machine's pid; and each host's namespace by its init.
    let (mut processes, mut hosts) = (HashMap::new(), HashMap::new());
    for pid in all() {
        let numbers = numbers(pid);
        // Exactly one namespace below the lab's: a host's process, not a pod's.
        if numbers.len() != depth + 1 || namespace(pid, "user") != Some(lab.clone()) {
            continue;
        }
        let Some(space) = namespace(pid, "pid") else { continue };
        if numbers[depth] == 1 {
            hosts.insert(numbers[depth - 1], (pid, space.clone()));
        }
        processes.insert((space, numbers[depth]), pid);
    }
    let mut spaces = HashMap::new();
    for host in &mut status.hosts {
        let found = host.pid.and_then(|pid| hosts.get(&pid));
        host.pid = found.map(|(pid, _)| *pid);
        spaces.extend(found.map(|(_, space)| (host.name.clone(), space.clone())));
    }
    for role in &mut status.roles {
        role.pid =
            role.host_pid.and_then(|pid| processes.get(&(spaces.get(&role.host)?.clone(), pid)).copied());
    }
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process's pids, outermost first.
fn numbers(pid: i32) -> Vec<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

fn namespace(pid: i32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}
