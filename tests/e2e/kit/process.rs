//! Processes, read from `/proc`: who belongs to a lab, and whether any of it is left.

use std::collections::HashMap;

/// One process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub started: u64,
    pub command: String,
}

/// Everything below `root`, with it.
pub fn tree(root: i32) -> Vec<Process> {
    let all = all();
    let mut members = vec![root];
    let mut at = 0;
    while at < members.len() {
        let parent = members[at];
        members.extend(all.values().filter(|(up, _)| *up == parent).map(|(_, process)| process.pid));
        at += 1;
    }
    members.iter().filter_map(|pid| all.get(pid)).map(|(_, process)| process.clone()).collect()
}

/// Which of these still run (a zombie does not).
pub fn alive(some: &[Process]) -> Vec<Process> {
    let now = all();
    some.iter()
        .filter(|was| now.get(&was.pid).is_some_and(|(_, is)| is.started == was.started))
        .cloned()
        .collect()
}

pub fn kill(pid: i32) {
    // SAFETY-free: nix wraps the call; a process that is gone already is what the caller wants.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

fn all() -> HashMap<i32, (i32, Process)> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, read(pid)?)))
        .collect()
}

fn read(pid: i32) -> Option<(i32, Process)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything, also brackets.
    let (head, rest) = (stat.split_once('(')?.1, stat.rsplit_once(") ")?.1);
    let command = head.rsplit_once(')')?.0.to_owned();
    let fields: Vec<&str> = rest.split(' ').collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some((fields.get(1)?.parse().ok()?, Process { pid, started: fields.get(19)?.parse().ok()?, command }))
}

/// Every process of the lab with this name that still says so on its command line.
pub fn named(lab: &str) -> Vec<Process> {
    let says = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(lab)
    };
    all().into_values().map(|(_, process)| process).filter(|process| says(process.pid)).collect()
}

/// Open descriptors, threads and resident kilobytes of a process.
pub fn held(pid: i32) -> (usize, usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (count("fd"), count("task"), resident)
}
