//! How streams end when somebody in between goes: with a word, and with nothing left behind.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::{WIRES, kubectl, text};
use crate::kit::process::held;
use crate::kit::{Lab, clients, eventually, rounds};

/// A stream that goes on for ever, once something has come of it.
fn endless(mut command: Command, arguments: &[&str]) -> Child {
    let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    child
}

/// It says so again and again: a kubectl that is slow to begin drops a first message that is quick to come
/// (client-go discards what arrives before its stream is made).
const EXEC: &[&str] = &["exec", "web", "--", "sh", "-c", "while :; do echo here; sleep 0.5; done"];
const ATTACH: &[&str] = &["attach", "web"];
const FORWARD: &[&str] = &["port-forward", "pod/web", ":8080"];
const LOGS: &[&str] = &["logs", "-f", "web", "--tail=1"];

#[track_caller]
fn ended_with_a_word(streams: Vec<(String, Child)>) {
    for (what, child) in streams {
        let output = ended(child, Duration::from_secs(60));
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.to_lowercase().contains("error"), "{what}: {said}");
        eprintln!("{what}: {said}");
    }
}

#[test]
fn streams_end_with_a_word_when_the_api_server_restarts() {
    let lab = Lab::up();
    lab.run("web", "while :; do date; sleep 0.2; done");
    let mut streams = Vec::new();
    for version in clients::both() {
        for wire in WIRES {
            for arguments in [EXEC, ATTACH, FORWARD, LOGS] {
                let what = format!("{} {} by {wire:?}", version.version, arguments[0]);
                streams.push((what, endless(kubectl(&lab, version, wire), arguments)));
            }
        }
    }
    lab.minilab(&["restart", "kube-apiserver"]).ok();
    ended_with_a_word(streams);
    eventually(Duration::from_secs(60), "exec works again", || {
        let ran = lab.kubectl(&["exec", "web", "--", "echo", "back"]);
        if ran.stdout == "back\n" { Ok(()) } else { Err(ran.stderr) }
    });
}

#[test]
fn commands_end_with_a_word_when_their_kubelet_goes_and_the_pod_does_not_notice() {
    let lab = Lab::up();
    lab.run("web", "while :; do date; sleep 0.2; done");
    let container = || lab.object(&["pod", "web"])["status"]["containerStatuses"][0].clone();
    let node = lab.object(&["pod", "web"])["spec"]["nodeName"].as_str().unwrap().to_owned();
    let before = container();
    let mut streams = Vec::new();
    for version in clients::both() {
        for wire in WIRES {
            for arguments in [EXEC, ATTACH, FORWARD] {
                let what = format!("{} {} by {wire:?}", version.version, arguments[0]);
                streams.push((what, endless(kubectl(&lab, version, wire), arguments)));
            }
        }
    }
    crate::kit::process::kill(lab.pid("kubelet", &node));
    ended_with_a_word(streams);
    eventually(Duration::from_secs(60), "exec works again", || {
        let ran = lab.kubectl(&["exec", "web", "--", "echo", "back"]);
        if ran.stdout == "back\n" { Ok(()) } else { Err(ran.stderr) }
    });
    let after = container();
    assert_eq!(
        (&after["containerID"], &after["restartCount"]),
        (&before["containerID"], &before["restartCount"])
    );
}

fn ended(mut child: Child, limit: Duration) -> Output {
    let deadline = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still there: {}", text(&child.wait_with_output().unwrap().stderr));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// Starts kubectl, waits for its first output and interrupts it.
fn start_and_interrupt(lab: &Lab, arguments: &[&str]) {
    let mut child = lab
        .kubectl_command(clients::any())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    child.wait().unwrap();
}

/// What must come back to where it was: descriptors, threads and kilobytes of a process, tasks of its runtime.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident: usize,
    tasks: usize,
}

impl Held {
    fn of(lab: &Lab, pid: i32, metrics: &str) -> Self {
        let page = lab.kubectl(&["get", "--raw", metrics]).ok();
        let tasks = page.lines().find_map(|line| line.strip_prefix("minilab_tasks ")?.parse().ok());
        let (descriptors, threads, resident) = held(pid);
        Self { descriptors, threads, resident, tasks: tasks.expect("the page counts tasks") }
    }

    /// Some are for the connection that asks; an allocator keeps a little.
    fn is_more_than(self, before: Self) -> bool {
        self.descriptors > before.descriptors + 4
            || self.threads > before.threads + 2
            || self.tasks > before.tasks + 8
            || self.resident > before.resident + 20_000
    }
}

#[test]
fn what_is_interrupted_leaves_nothing_in_api_server_and_kubelet() {
    let lab = Lab::up();
    lab.run("web", "while :; do date; sleep 0.1; done");
    let node = lab.object(&["pod", "web"])["spec"]["nodeName"].as_str().unwrap().to_owned();
    let kubelet = format!("/api/v1/nodes/{node}/proxy/metrics");
    let processes =
        [(lab.pid("kube-apiserver", "control"), "/metrics"), (lab.pid("kubelet", &node), kubelet.as_str())];
    let both: [&[&str]; 2] = [&["logs", "-f", "web"], EXEC];
    // What the first rounds load stays loaded.
    for _ in 0..3 {
        both.iter().for_each(|arguments| start_and_interrupt(&lab, arguments));
    }
    std::thread::sleep(Duration::from_secs(3));
    let before = processes.map(|(pid, metrics)| Held::of(&lab, pid, metrics));
    for round in 0..rounds(1000) {
        both.iter().for_each(|arguments| start_and_interrupt(&lab, arguments));
        if round % 50 == 49 {
            eprintln!("{round}: {:?}", processes.map(|(pid, metrics)| Held::of(&lab, pid, metrics)));
        }
    }
    for ((pid, metrics), before) in processes.into_iter().zip(before) {
        eventually(Duration::from_secs(60), "everything is given back", || {
            let now = Held::of(&lab, pid, metrics);
            if now.is_more_than(before) { Err(format!("{now:?}, before {before:?}")) } else { Ok(()) }
        });
    }
}
