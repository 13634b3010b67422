//! The keeper: the lab's process on the machine's side.
//!
//! It holds what only the machine can give: the lock, the listener on 127.0.0.1, the id map. Its child, the
//! supervisor, is the lab's pid 1. Either one's end is the other's: the supervisor has a parent-death signal
//! and the read end of a pipe that only the keeper holds open; the keeper waits for the supervisor.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::pipe2;

use super::idmap::{self, IdMap};
use super::protocol::{self, Pids, Report};
use super::reach;
use super::removal;
use super::state::{LabDir, Lock, Owner, Standing};
use super::supervisor;
use crate::sys::child::{Child, Spawn};
use crate::sys::packet::PacketSocket;
use crate::sys::process;

/// How long a port may still be held by the lab's previous run, which is dying.
const PORT_PATIENCE: Duration = Duration::from_millis(300);
/// How many ports after the asked one are tried for a second lab.
const PORTS: u16 = 100;

#[derive(Debug, Parser)]
#[command(name = "minilab-keeper", no_binary_name = true)]
struct Args {
    #[arg(long)]
    lab: String,
    #[arg(long)]
    state: PathBuf,
    /// This port or none.
    #[arg(long)]
    port: Option<u16>,
    /// The first free port from here on.
    #[arg(long, default_value_t = 6443)]
    port_from: u16,
}

/// The role's entry point: standard input is the launch connection.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let args = Args::try_parse_from(argv)?;
    process::set_name(c"minilab-keeper");
    // A session of its own: neither the terminal's signals nor its end reach the lab.
    nix::unistd::setsid()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let launch = PacketSocket::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    match keep(&args, &launch) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            let report = Report::Failed { error: format!("{:#}", failure.error), remedy: failure.remedy };
            // `up` may have gone already.
            let _ = protocol::send(&launch, &report);
            Err(failure.error)
        }
    }
}

/// An error and the one line that helps.
struct Failure {
    error: anyhow::Error,
    remedy: Option<String>,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure { error: error.into(), remedy: None }
    }
}

fn keep(args: &Args, launch: &PacketSocket) -> Result<(), Failure> {
    let meta = fs::metadata(&args.state).with_context(|| format!("read {}", args.state.display()))?;
    let standing = match (nix::unistd::geteuid().is_root(), meta.uid()) {
        (false, _) | (true, 0) => Standing::Own,
        (true, idmap::APART) => Standing::Apart,
        (true, _) => Standing::Sudo,
    };
    let owner = Owner { uid: meta.uid().into(), gid: meta.gid().into(), home: None, standing };
    let lab = LabDir { name: args.lab.clone(), owner, state: args.state.clone() };
    let mut lock = lab.hold()?.with_context(|| format!("lab {} is already running", lab.name))?;
    let kept = run_lab(args, &lab, launch, &mut lock);
    if !lab.exists() {
        sweep(&lab);
    }
    kept
}

/// A first `up` that was killed leaves nothing behind, keys least of all. While an `up` lives it holds the
/// directory's lock, and sees to this itself.
fn sweep(lab: &LabDir) {
    let Some(_changes) = lab.try_lock() else { return };
    let gone = removal::contents(lab)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(fs::remove_file(lab.state.join("keeper.lock"))?))
        .and_then(|()| Ok(fs::remove_dir(&lab.state)?));
    // Where the directory's own parent is somebody else's, an empty directory stays.
    if let Err(error) = gone {
        eprintln!("{} is not all removed: {error:#}", lab.state.display());
    }
}

fn run_lab(args: &Args, lab: &LabDir, launch: &PacketSocket, lock: &mut Lock) -> Result<(), Failure> {
    let listener = listen(args)?;
    process::listen_long(&listener)?;
    let port = listener.local_addr()?.port();
    protocol::send(launch, &Report::Listening { port })?;
    let signals = process::signals(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    let (supervisor, _life) = start(lab, launch, lock, listener)?;
    let pids = Pids { keeper: nix::unistd::getpid().as_raw(), supervisor: supervisor.pid.as_raw() };
    fs::write(protocol::pids_file(&lab.state), serde_json::to_vec(&pids)?)?;
    let committed = watch(&supervisor, launch, signals, lock)?;
    let status = waitpid(supervisor.pid, None)?;
    // Where it could say why, the supervisor has.
    if !committed && status != WaitStatus::Exited(supervisor.pid, 0) {
        let logs = lab.state.join("logs");
        return Err(anyhow::anyhow!("the supervisor ended: {status:?}; see {}", logs.display()).into());
    }
    Ok(())
}

fn listen(args: &Args) -> Result<TcpListener, Failure> {
    let begun = Instant::now();
    let ports = match args.port {
        Some(port) => port..=port,
        None => args.port_from..=args.port_from.saturating_add(PORTS),
    };
    loop {
        let mut last = io::Error::from(Errno::EADDRINUSE);
        for port in ports.clone() {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        if args.port.is_none() || last.kind() != io::ErrorKind::AddrInUse || begun.elapsed() > PORT_PATIENCE {
            let at = format!("127.0.0.1:{}", ports.start());
            let error = match last.kind() {
                io::ErrorKind::AddrInUse => anyhow::anyhow!("{at} is taken by another program or lab"),
                _ => anyhow::Error::from(last).context(format!("listen on {at}")),
            };
            let remedy = Some("free the port, or choose another one with --port".into());
            return Err(Failure { error, remedy });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts the supervisor in namespaces of its own. The pipe's end is the keeper's sign of life.
fn start(
    lab: &LabDir,
    launch: &PacketSocket,
    lock: &Lock,
    listener: TcpListener,
) -> Result<(Child, OwnedFd), Failure> {
    let (uid, gid) = (lab.owner.uid.as_raw(), lab.owner.gid.as_raw());
    let exe = std::env::current_exe()?;
    if lab.owner.standing == Standing::Apart {
        reach::open(&[&lab.state, &exe], uid, gid).context("open the lab's directory to the lab")?;
    }
    if nix::unistd::geteuid().is_root() && uid != 0 {
        process::act_for(uid, gid).context("act for the lab's owner")?;
    }
    let map = IdMap::choose(uid, gid);
    let (watched, life) = pipe2(OFlag::O_CLOEXEC)?;
    let fds = supervisor::Inherited {
        life: watched,
        launch: launch.as_fd().try_clone_to_owned()?,
        listener: listener.into(),
        lock: lock.as_fd().try_clone_to_owned()?,
    };
    let mut spawn = Spawn::new(exe.display().to_string(), supervisor::argv(lab));
    spawn.env = passed_on();
    fds.give(&mut spawn);
    spawn.dies_with_parent = true;
    spawn.namespaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let (child, gate) = spawn.start_gated().map_err(no_namespaces)?;
    map.write(child.pid.as_raw()).context("map the lab's ids")?;
    gate.open()?;
    Ok((child, life))
}

fn no_namespaces(error: io::Error) -> Failure {
    let remedy = match error.raw_os_error() {
        Some(libc::ENOSPC) => "sudo sysctl -w user.max_user_namespaces=15000 user.max_net_namespaces=15000",
        _ => "allow user namespaces (`minilab doctor` says how), or use sudo",
    };
    let error = anyhow::Error::from(error).context("make a user namespace");
    Failure { error, remedy: Some(remedy.into()) }
}

/// The little of the caller's environment that the lab sees.
fn passed_on() -> Vec<(String, String)> {
    let wanted = ["PATH", "MINILAB_LOG", "RUST_BACKTRACE"];
    std::env::vars().filter(|(name, _)| wanted.contains(&name.as_str())).collect()
}

/// Waits for the supervisor's end, and brings it about when `up` goes away before it was content or when
/// the keeper is told to stop. Says whether the lab was ever committed.
fn watch(
    supervisor: &Child,
    launch: &PacketSocket,
    signals: nix::sys::signalfd::SignalFd,
    lock: &mut Lock,
) -> Result<bool, Failure> {
    let mut committed = false;
    loop {
        let mut waiting = vec![
            PollFd::new(supervisor.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if !committed {
            waiting.push(PollFd::new(launch.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let happened = |at: usize| waiting.get(at).and_then(PollFd::any).unwrap_or(false);
        if happened(0) {
            return Ok(committed);
        }
        if happened(1) {
            while signals.read_signal()?.is_some() {}
            // The supervisor ends its roles first.
            let _ = kill(supervisor.pid, Signal::SIGTERM);
        }
        if happened(2) {
            match launch.try_receive() {
                Ok(Some(_)) => {
                    committed = true;
                    lock.commit().context("write keeper.lock")?;
                }
                Ok(None) => drop(kill(supervisor.pid, Signal::SIGKILL)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => drop(kill(supervisor.pid, Signal::SIGKILL)),
            }
        }
    }
}
