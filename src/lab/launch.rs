//! Starting a lab, as `up` does it: forks the keeper off and follows its reports.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::protocol::{self, ProtocolError, Report};
use super::state::LabDir;
use crate::sys::packet::PacketSocket;

/// The port of a lab on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// This one or none.
    Exactly(u16),
    /// The first free one from here on.
    From(u16),
}

/// A lab that is starting. Dropping it without [`Launch::commit`] ends the lab.
#[derive(Debug)]
pub struct Launch {
    keeper: PacketSocket,
}

/// What [`Launch::next`] waited for.
#[derive(Debug)]
pub enum Next {
    Report(Report),
    /// Nothing was said in time; the lab goes on starting.
    Late,
    /// The keeper has gone.
    Gone,
}

/// Why the keeper could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot start the keeper")]
    Start { source: io::Error },
    #[error("cannot write {path}")]
    Log { path: PathBuf, source: io::Error },
}

impl Launch {
    /// Starts the lab whose plan and files are in place. It outlives this process once committed.
    pub fn start(lab: &LabDir, port: Port) -> Result<Launch, LaunchError> {
        let started = |source| LaunchError::Start { source };
        let (near, far) = PacketSocket::pair().map_err(started)?;
        let logs = lab.state.join("logs");
        let path = logs.join("minilab-keeper.log");
        let failed = |source| LaunchError::Log { path: path.clone(), source };
        match DirBuilder::new().mode(0o755).create(&logs) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => lab.owner.adopt(&logs).map_err(failed)?,
        }
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
        lab.owner.adopt(&path).map_err(failed)?;
        let (word, number) = match port {
            Port::Exactly(port) => ("--port", port),
            Port::From(port) => ("--port-from", port),
        };
        Command::new(std::env::current_exe().map_err(started)?)
            .arg0("minilab-keeper")
            .arg(format!("--lab={}", lab.name))
            .arg(format!("--state={}", lab.state.display()))
            .arg(format!("{word}={number}"))
            .stdin(OwnedFd::from(far))
            .stdout(Stdio::null())
            .stderr(log)
            .current_dir("/")
            .spawn()
            .map_err(started)?;
        Ok(Launch { keeper: near })
    }

    /// The next report, [`Next::Late`] when there is none by `deadline`.
    pub fn next(&self, deadline: Instant) -> Result<Next, ProtocolError> {
        let mut waiting = [PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut waiting, left) {
                Ok(0) => return Ok(Next::Late),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(ProtocolError::Transfer { source: errno.into() }),
                Ok(_) => break,
            }
        }
        match protocol::receive(&self.keeper) {
            Ok((report, _)) => Ok(Next::Report(report)),
            Err(ProtocolError::Ended) => Ok(Next::Gone),
            Err(error) => Err(error),
        }
    }

    /// Lets the lab live on without this process.
    pub fn commit(self) -> Result<(), ProtocolError> {
        protocol::send(&self.keeper, &"commit")
    }
}
