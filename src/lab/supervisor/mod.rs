//! The supervisor: pid 1 of the lab. It starts the hosts, orders their inits to start roles, keeps the
//! roles running, plays the cloud for the route controller, and answers on the control socket.
//!
//! It stands for what a datacentre and systemd do for a real cluster. One thread: hosts are started and
//! networks visited between events. It ends with the keeper, and with it ends everything in the lab.

mod control;
mod events;
mod hosts;
mod liveness;
mod manifests;
mod replan;
mod reports;
mod requests;
mod role;
mod start;

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid};

use self::events::Supervisor;
use self::hosts::Hosts;
use super::plan::Plan;
use super::protocol::{self, Report, run_directory};
use super::state::{LabDir, Owner, Standing};
use super::topology::TopologyError;
use crate::sys::child::Spawn;
use crate::sys::mount::MountError;
use crate::sys::netlink::NetlinkError;
use crate::sys::nft::NftError;
use crate::sys::packet::PacketSocket;
use crate::sys::{inherit, mount, process};

/// What the supervisor cannot do.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: std::io::Error },
    #[error("cannot find the minilab binary")]
    Binary { source: std::io::Error },
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("the lab has no host {host}, or it does not run")]
    NoHost { host: String },
    #[error("cannot start host {host}")]
    StartHost { host: String, source: std::io::Error },
    #[error("cannot make the root of host {host}: {error}")]
    BuildHost { host: String, error: String },
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("cannot set the pods' routes")]
    Routes(#[from] NetlinkError),
    #[error("cannot set wire's rules")]
    Rules(#[source] NftError),
    #[error("cannot listen on {at} in {host}")]
    Listen { host: String, at: SocketAddr, source: std::io::Error },
}

#[derive(Debug, Parser)]
#[command(name = "minilab-supervisor", no_binary_name = true)]
struct Args {
    #[arg(long)]
    lab: String,
    #[arg(long)]
    state: PathBuf,
}

/// The supervisor's command line.
pub fn argv(lab: &LabDir) -> Vec<String> {
    let state = lab.state.display();
    vec!["minilab-supervisor".into(), format!("--lab={}", lab.name), format!("--state={state}")]
}

/// What the supervisor gets from the keeper.
#[derive(Debug)]
pub struct Inherited {
    /// Ends with the keeper.
    pub life: OwnedFd,
    /// To `up`.
    pub launch: OwnedFd,
    /// 127.0.0.1 of the machine.
    pub listener: OwnedFd,
    /// So that the lock is held until the last of us is gone.
    pub lock: OwnedFd,
}

const NAMES: [&str; 4] = ["MINILAB_LIFE_FD", "MINILAB_LAUNCH_FD", "MINILAB_LISTENER_FD", "MINILAB_LOCK_FD"];

impl Inherited {
    /// Puts everything in its place for a supervisor about to start.
    pub fn give(self, spawn: &mut Spawn) {
        for (at, (name, fd)) in
            NAMES.into_iter().zip([self.life, self.launch, self.listener, self.lock]).enumerate()
        {
            let place = inherit::FIRST_LISTENER + at as i32;
            spawn.env.push((name.into(), place.to_string()));
            spawn.fds.push((fd, place));
        }
    }

    fn take() -> anyhow::Result<Inherited> {
        let [life, launch, listener, lock] =
            NAMES.map(|name| inherit::descriptor(name).context("the supervisor is started by the keeper"));
        Ok(Inherited { life: life?, launch: launch?, listener: listener?, lock: lock? })
    }
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let args = Args::try_parse_from(argv)?;
    process::set_name(c"minilab-supervisor");
    let inherited = Inherited::take()?;
    let launch = PacketSocket::from(inherited.launch.as_fd().try_clone_to_owned()?);
    let outcome = supervise(&args, inherited);
    if let Err(error) = &outcome {
        let report = Report::Failed { error: format!("{error:#}"), remedy: None };
        // `up` may be long gone.
        let _ = protocol::send(&launch, &report);
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn supervise(args: &Args, inherited: Inherited) -> anyhow::Result<()> {
    let begun = Instant::now();
    let owner = Owner { uid: Uid::from_raw(0), gid: Gid::from_raw(0), home: None, standing: Standing::Own };
    let lab = LabDir { name: args.lab.clone(), owner, state: args.state.clone() };
    let run = run_directory(&lab.state);
    // Watches are connections: an API server has many.
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    }
    mount::make_private()?;
    // The machine's shows other numbers than ours.
    mount::proc(std::path::Path::new("/proc"))?;
    fs::DirBuilder::new().recursive(true).create(&run).with_context(|| format!("make {}", run.display()))?;
    mount::tmpfs(&run, "mode=700,size=1m")?;
    let text = fs::read(lab.plan_file()).with_context(|| format!("read {}", lab.plan_file().display()))?;
    let plan: Plan =
        serde_json::from_slice(&text).with_context(|| format!("read {}", lab.plan_file().display()))?;
    let launch = PacketSocket::from(inherited.launch);
    let mut last = begun;
    let mut step = |what: &str| {
        let micros = last.elapsed().as_micros() as u64;
        last = Instant::now();
        protocol::send(&launch, &Report::Step { what: what.into(), micros })
    };
    let mut hosts = Hosts::new(lab.clone(), run.clone(), &plan)?;
    let names: Vec<_> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
    names.iter().try_for_each(|name| hosts.start(name))?;
    step("Made the hosts")?;
    hosts.connect(&names)?;
    step("Connected them")?;
    let listener = crate::sys::packet::PacketListener::bind(&run, protocol::CONTROL)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let supervisor = Supervisor::new(lab, hosts, &plan, inherited.listener, launch, begun)?;
    // Held until the end, with the keeper's own.
    let _lock = inherited.lock;
    tokio::task::LocalSet::new().block_on(&runtime, supervisor.run(listener, inherited.life))
}

/// The little of the environment that is handed down.
fn passed_on() -> Vec<(String, String)> {
    let wanted = ["PATH", "MINILAB_LOG", "RUST_BACKTRACE"];
    std::env::vars().filter(|(name, _)| wanted.contains(&name.as_str())).collect()
}
