//! The doctor's child: makes the namespaces of a lab and works in them. Everything it made goes with it.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use super::{Answer, Finding, Outcome, Verdict, finding};
use crate::sys::netlink::Netlink;
use crate::sys::nft::{Batch, ChainKind, Family, Hook, priority};

const NONE: Option<&str> = None;

const NAMESPACES: &str = "namespaces";
pub const NETWORK: &str = "network";

/// The child: one process, one thread, and namespaces that go with it.
#[derive(Args)]
pub struct Probe {
    /// Where the lab's data would be
    near: PathBuf,
    /// In the pid namespace: only proc is left to try
    #[arg(long)]
    inner: bool,
}

impl Probe {
    pub fn run(self) -> Outcome {
        if self.inner {
            mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NONE)?;
            return Ok(Answer::Done);
        }
        let mut findings = Vec::new();
        let userns = "`minilab doctor` as root, or allow user namespaces (see above)";
        match enter() {
            Err(error) => findings.push(finding(NAMESPACES, Verdict::Missing, error.to_string(), userns)),
            Ok(()) => {
                findings.push(finding(NAMESPACES, Verdict::Good, "user, mount, net, uts, ipc, pid", ""));
                findings.extend(inside(&self.near));
            }
        }
        println!("{}", serde_json::to_string(&findings)?);
        Ok(Answer::Done)
    }
}

fn inside(near: &Path) -> [Finding; 3] {
    let disk = "keep labs on ext4, xfs, btrfs or tmpfs with --state-dir DIR";
    let proc = "unmask /proc (in Docker: --security-opt systempaths=unconfined)";
    [
        tried(NETWORK, network(), "load the modules veth, bridge and nf_tables"),
        tried("overlay file systems", overlay(near), disk),
        tried("proc of one's own", own_proc(), proc),
    ]
}

fn tried(name: &str, result: anyhow::Result<String>, remedy: &str) -> Finding {
    match result {
        Ok(found) => finding(name, Verdict::Good, found, ""),
        Err(error) => finding(name, Verdict::Missing, format!("{error:#}"), remedy),
    }
}

/// Makes the namespaces of a lab and becomes root in them.
fn enter() -> anyhow::Result<()> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWPID,
    )?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    Ok(())
}

/// A cable, a bridge and a redirecting rule.
fn network() -> anyhow::Result<String> {
    let here = std::fs::File::open("/proc/thread-self/ns/net")?;
    let mut netlink = Netlink::open()?;
    netlink.add_bridge("bridge")?;
    netlink.add_veth("near", "far", here.as_fd())?;
    let mut table = Batch::replace(Family::Ip, "minilab-doctor");
    table.base_chain("prerouting", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT);
    table.commit()?;
    Ok("veth, bridge, nftables with NAT".into())
}

/// An overlay whose upper directory is where a pod's would be.
fn overlay(near: &Path) -> anyhow::Result<String> {
    let dir = near.join(format!(".minilab-doctor-{}", std::process::id()));
    let attempt = || {
        for part in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir_all(dir.join(part))?;
        }
        let options =
            format!("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work,userxattr", dir.display());
        mount(
            Some("overlay"),
            &dir.join("merged"),
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
        std::fs::write(dir.join("merged/file"), "written")?;
        umount2(&dir.join("merged"), MntFlags::MNT_DETACH)?;
        mount(Some("tmpfs"), &dir.join("merged"), Some("tmpfs"), MsFlags::empty(), NONE)?;
        umount2(&dir.join("merged"), MntFlags::MNT_DETACH)?;
        anyhow::Ok(format!("a file was written through one in {}", near.display()))
    };
    let result = attempt();
    // The work directory belongs to this namespace's root; so does the right to remove it.
    let _ = std::fs::remove_dir_all(&dir);
    result
}

/// A proc of a new pid namespace: only a child of ours is in it.
fn own_proc() -> anyhow::Result<String> {
    let output = Command::new(std::env::current_exe()?)
        .arg0("minilab")
        .args(["doctor-probe", "--inner", "/"])
        .stdin(Stdio::null())
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok("mounted in a new pid namespace".into())
}
