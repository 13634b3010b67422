//! `minilab doctor`: tries what a lab needs of this machine, and names the remedy where it fails.
//!
//! Kernel features are really tried, in a child that makes the namespaces a lab would and works in them
//! (`minilab doctor-probe`, this same binary); settings are read only to say why something failed. The
//! quick part, which `up` runs first, reads a few files and starts nothing.

mod probe;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::{Answer, Outcome, Output, Trouble};
use crate::lab::state::LabDir;

pub use probe::Probe;

/// What a lab of two nodes may write before anybody uses it.
const ROOM: u64 = 64 << 20;

#[derive(Args)]
pub struct Doctor {
    #[command(flatten)]
    output: Output,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    name: String,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// One line to paste or to do; empty when all is well.
    remedy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    Good,
    /// A lab works, with less.
    Lacking,
    /// No lab here.
    Missing,
}

impl Doctor {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let mut findings = vec![kernel(), namespaces_allowed(), room(lab)];
        findings.extend(probe(lab));
        findings.extend([ids(), inotify(), cgroups(), kubectl()]);
        let missing = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
        if self.output.json() {
            super::print_json(&serde_json::json!({"good": !missing, "checks": findings}))?;
        } else {
            findings.iter().for_each(print);
            println!("{}", if missing { "\nNo lab can run here yet." } else { "\nA lab can run here." });
        }
        Ok(if missing { Answer::MachineCannot } else { Answer::Done })
    }
}

fn print(finding: &Finding) {
    let mark = match finding.verdict {
        Verdict::Good => "good   ",
        Verdict::Lacking => "lacking",
        Verdict::Missing => "MISSING",
    };
    println!("{mark}  {}: {}", finding.name, finding.found);
    if !finding.remedy.is_empty() {
        println!("         try: {}", finding.remedy);
    }
}

/// What `up` looks at before it makes anything: exit 5 with the remedy when a lab cannot be.
pub fn quick(lab: &LabDir) -> Result<(), Trouble> {
    let missing =
        [namespaces_allowed(), room(lab)].into_iter().find(|finding| finding.verdict == Verdict::Missing);
    match missing {
        None => Ok(()),
        Some(finding) => {
            let what = format!("{}: {}", finding.name, finding.found);
            Err(Trouble::new(Answer::MachineCannot, what, finding.remedy))
        }
    }
}

/// The remedy for the first thing that no lab can do without, when the kernel is really tried.
pub fn what_is_missing(lab: &LabDir) -> Option<String> {
    let findings = [kernel(), namespaces_allowed(), room(lab)].into_iter().chain(probe(lab));
    findings.into_iter().find(|finding| finding.verdict == Verdict::Missing).map(|finding| finding.remedy)
}

fn finding(name: &str, verdict: Verdict, found: impl Into<String>, remedy: &str) -> Finding {
    let remedy = if verdict == Verdict::Good { "" } else { remedy };
    Finding { name: name.into(), verdict, found: found.into(), remedy: remedy.into() }
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

/// 5.12 is the first that lets root of a user namespace mount overlayfs (5.11) and map mounts.
fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|word| word.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let verdict = if version >= (5, 12) { Verdict::Good } else { Verdict::Missing };
    finding("kernel", verdict, format!("Linux {release}"), "boot Linux 5.12 or newer")
}

/// The switches distributions use to forbid user namespaces to ordinary users.
fn namespaces_allowed() -> Finding {
    let name = "user namespaces allowed";
    let is = |path: &str, value: &str| read(path).as_deref() == Some(value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        let found = "user.max_user_namespaces is 0";
        return finding(name, Verdict::Missing, found, "sudo sysctl -w user.max_user_namespaces=15000");
    }
    if Uid::effective().is_root() {
        return finding(name, Verdict::Good, "this is root", "");
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        let found = "kernel.unprivileged_userns_clone is 0";
        let remedy = "sudo sysctl -w kernel.unprivileged_userns_clone=1, or `sudo minilab up`";
        return finding(name, Verdict::Missing, found, remedy);
    }
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        // A profile may still allow this binary; only trying tells.
        let found = "AppArmor restricts them";
        let remedy = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or `sudo minilab up`";
        let verdict = if can_unshare() { Verdict::Good } else { Verdict::Missing };
        return finding(name, verdict, found, remedy);
    }
    finding(name, Verdict::Good, "nothing forbids them", "")
}

/// Whether a child of this binary may make a user namespace that is good for something.
fn can_unshare() -> bool {
    let Ok(report) = run_probe(Path::new("/nonexistent")) else { return false };
    report.iter().any(|finding| finding.name == probe::NETWORK && finding.verdict == Verdict::Good)
}

/// Free space and inodes where the lab's data goes.
fn room(lab: &LabDir) -> Finding {
    let name = "room for the lab's data";
    let there = lab.state.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match statvfs(there) {
        Err(error) => {
            finding(name, Verdict::Missing, format!("{}: {error}", there.display()), "use --state-dir DIR")
        }
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            // Some file systems count no inodes and say 0 of 0.
            let inodes = stat.files() == 0 || stat.files_available() > 2000;
            let verdict = if free >= ROOM && inodes { Verdict::Good } else { Verdict::Missing };
            let what = if inodes { String::new() } else { ", too few inodes".into() };
            let found = format!("{} MiB free in {}{what}", free >> 20, there.display());
            finding(name, verdict, found, "free some space, or keep labs elsewhere with --state-dir DIR")
        }
    }
}

/// More than one id lets pods have users of their own.
fn ids() -> Finding {
    let name = "ids for the lab";
    let on_path = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).exists())
    };
    let remedy = "install uidmap and add a line for this user to /etc/subuid and /etc/subgid";
    if Uid::effective().is_root() {
        return finding(name, Verdict::Good, "root maps 65,537", "");
    }
    let (uid, user) = (Uid::effective(), nix::unistd::User::from_uid(Uid::effective()).ok().flatten());
    let listed = |file: &str| {
        let text = read(file).unwrap_or_default();
        text.lines().any(|line| {
            let owner = line.split(':').next().unwrap_or_default();
            owner == uid.to_string() || user.as_ref().is_some_and(|user| user.name == owner)
        })
    };
    let all = on_path("newuidmap") && on_path("newgidmap") && listed("/etc/subuid") && listed("/etc/subgid");
    match all {
        true => finding(name, Verdict::Good, "65,537 through newuidmap", ""),
        false => finding(
            name,
            Verdict::Lacking,
            "one: pods whose user is not root get no files of their own",
            remedy,
        ),
    }
}

fn inotify() -> Finding {
    let instances = read("/proc/sys/fs/inotify/max_user_instances").and_then(|text| text.parse::<u32>().ok());
    let verdict = if instances.is_none_or(|count| count >= 64) { Verdict::Good } else { Verdict::Lacking };
    let found =
        format!("{} inotify instances", instances.map_or("unlimited".into(), |count| count.to_string()));
    finding("file watching", verdict, found, "sudo sysctl -w fs.inotify.max_user_instances=512")
}

/// Whether limits of pods can be enforced.
fn cgroups() -> Finding {
    let ours = read("/proc/self/cgroup").unwrap_or_default();
    let path = ours.lines().find_map(|line| line.strip_prefix("0::"));
    let dir = path.map(|path| PathBuf::from("/sys/fs/cgroup").join(path.trim_start_matches('/')));
    let writable = dir.is_some_and(|dir| {
        nix::unistd::access(&dir.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK).is_ok()
    });
    let whose = if nix::unistd::geteuid().is_root() { "" } else { " --user" };
    let remedy = match Path::new("/run/systemd/system").exists() {
        true => format!("systemd-run{whose} --scope -p Delegate=yes minilab up"),
        false => "a machine with cgroup v2 and systemd; everything else works without".to_owned(),
    };
    let found = "not delegated: a container may use more than its limits say";
    match writable {
        true => finding("cgroups", Verdict::Good, "delegated", ""),
        false => finding("cgroups", Verdict::Lacking, found, &remedy),
    }
}

fn kubectl() -> Finding {
    let version = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().ok();
    let version = version
        .and_then(|output| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok())
        .and_then(|tree| tree["clientVersion"]["gitVersion"].as_str().map(str::to_owned));
    match version {
        Some(version) => finding("kubectl", Verdict::Good, version, ""),
        None => {
            finding("kubectl", Verdict::Lacking, "not on PATH", "https://kubernetes.io/docs/tasks/tools/")
        }
    }
}

/// Tries the kernel in a child; when that cannot even start, says so.
fn probe(lab: &LabDir) -> Vec<Finding> {
    // Not in the lab's own directory: that of a lab of root belongs to ids the probe does not have.
    let mut above = lab.state.ancestors().skip(1);
    let near = above.find(|dir| dir.is_dir()).unwrap_or(Path::new("/tmp")).to_owned();
    run_probe(&near).unwrap_or_else(|error| {
        vec![finding(
            "kernel features",
            Verdict::Missing,
            format!("the probe failed: {error:#}"),
            "run it as root",
        )]
    })
}

fn run_probe(near: &Path) -> anyhow::Result<Vec<Finding>> {
    let output = Command::new(std::env::current_exe()?)
        .arg0("minilab")
        .arg("doctor-probe")
        .arg(near)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}
