//! A host's init: pid 1 of a host. It makes the host's root, starts processes as the supervisor says,
//! reaps every one, also those it never started, and says how they ended.
//!
//! Single-threaded; when it ends, by whatever cause, the kernel ends everything in the host. It ends when
//! the supervisor does: by the parent-death signal, and by the end of the connection.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::hostroot;
use super::order::{Exit, Notice, ORDERS, Order, Run};
use crate::sys::child::{Session, Spawn};
use crate::sys::packet::{Packet, PacketSocket};
use crate::sys::{inherit, process, terminal};

/// The role's entry point.
pub fn run(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    process::set_name(c"init");
    let orders = inherit::descriptor(ORDERS).context("init is started by the supervisor")?;
    let mut init = Init { supervisor: orders.into(), running: BTreeMap::new() };
    let signals = process::signals(&[Signal::SIGCHLD])?;
    loop {
        let mut waiting = [
            PollFd::new(init.supervisor.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while signals.read_signal()?.is_some() {}
        init.reap()?;
        loop {
            match init.supervisor.try_receive() {
                Ok(Some(packet)) => init.obey(packet)?,
                Ok(None) => return Ok(ExitCode::SUCCESS),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the supervisor's connection"),
            }
        }
    }
}

struct Init {
    supervisor: PacketSocket,
    /// By pid, the supervisor's name for a process.
    running: BTreeMap<i32, u64>,
}

impl Init {
    fn obey(&mut self, (bytes, fds): Packet) -> anyhow::Result<()> {
        match serde_json::from_slice(&bytes).context("an order that cannot be read")? {
            Order::Build(blueprint) => {
                if let Err(error) = hostroot::build(&blueprint) {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    self.say(&Notice::NotBuilt { error: error.clone() }, None)?;
                    anyhow::bail!(error);
                }
                self.say(&Notice::Built, None)
            }
            Order::Run(run) => {
                let id = run.id;
                match start(run, fds) {
                    Ok((pid, terminal)) => {
                        self.running.insert(pid, id);
                        self.say(&Notice::Started { id, pid }, terminal.as_ref())
                    }
                    Err(error) => self.say(&Notice::NotStarted { id, error: error.to_string() }, None),
                }
            }
            Order::Signal { id, signal, group } => {
                self.signal(id, signal, group);
                Ok(())
            }
        }
    }

    fn signal(&self, id: u64, signal: i32, group: bool) {
        let Ok(signal) = Signal::try_from(signal) else { return };
        for pid in self.running.iter().filter(|(_, known)| **known == id).map(|(pid, _)| Pid::from_raw(*pid))
        {
            // It may end at this very moment; then its exit is on the way.
            let _ = if group { killpg(pid, signal) } else { kill(pid, signal) };
        }
    }

    /// Collects everything that has ended, orphans too.
    fn reap(&mut self) -> anyhow::Result<()> {
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
                Ok(_) | Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(id) = self.running.remove(&pid.as_raw()) {
                self.say(&Notice::Exited { id, exit }, None)?;
            }
        }
    }

    fn say(&self, notice: &Notice, fd: Option<&OwnedFd>) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec(notice).expect("a notice has only string keys");
        let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
        self.supervisor.send(&bytes, &fds).context("the supervisor's connection")
    }
}

/// Starts a process; gives its pid and, with a terminal, the end it is shown on.
fn start(run: Run, fds: Vec<OwnedFd>) -> io::Result<(i32, Option<OwnedFd>)> {
    let path = run.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_str());
    let name = run.argv.first().ok_or(io::ErrorKind::InvalidInput)?;
    let program = find(name.trim_start_matches('-'), path.unwrap_or(hostroot::PATH))?;
    let mut spawn = Spawn::new(program, run.argv);
    spawn.env = run.env;
    spawn.directory = run.directory;
    spawn.session = Session::New;
    spawn.fds = fds.into_iter().zip(run.places).collect();
    let mut shown = None;
    if run.terminal {
        let (outer, inner) = terminal::pair()?;
        for place in 0..=2 {
            spawn.fds.push((inner.try_clone()?, place));
        }
        spawn.session = Session::NewOnTerminal;
        shown = Some(outer);
    }
    let child = spawn.start()?;
    Ok((child.pid.as_raw(), shown))
}

/// Looks for a program as a shell does.
fn find(name: &str, path: &str) -> io::Result<String> {
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let candidates = path.split(':').map(|directory| format!("{directory}/{name}"));
    candidates
        .into_iter()
        .find(|candidate| nix::unistd::access(Path::new(candidate), nix::unistd::AccessFlags::X_OK).is_ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name}: command not found")))
}
