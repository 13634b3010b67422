//! What the command line and a running lab say to each other.
//!
//! Two connections, both of whole JSON messages that may carry descriptors. The *launch* connection joins
//! `up` and the keeper while a lab starts: [`Report`]s come over it, and until `up` has said it is content,
//! its end is the lab's end. The *control* connection asks a running supervisor for something.
//!
//! The control socket lies in a file system that only the supervisor has mounted, and is reached through
//! `/proc/PID/root`: the kernel lets in who may trace the supervisor, the lab's owner and root, and when the
//! lab dies, however it dies, no socket is left.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::state::LabDir;
use crate::sys::packet::{Packet, PacketSocket};

/// The control socket's name in the lab's `run` directory.
pub const CONTROL: &str = "control.sock";

/// How a start goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Report {
    /// The lab's port on 127.0.0.1 is bound.
    Listening { port: u16 },
    /// A step is done; the time is counted from the keeper's start.
    Step { what: String, micros: u64 },
    /// A role says that it serves, or has done its work; `micros` since its own start.
    Ready { role: String, host: String, finished: bool, micros: u64 },
    /// A role ended before it served; it is started again.
    Ended { role: String, host: String, how: String, log: PathBuf },
    /// Every role serves.
    Up { micros: u64 },
    /// There will be no lab.
    Failed { error: String, remedy: Option<String> },
}

/// What a running lab is asked for. A role without a host means every host that has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    Status,
    /// Answered when the role serves again (or, for `stop`, has ended).
    Start {
        role: String,
        host: Option<String>,
    },
    Stop {
        role: String,
        host: Option<String>,
    },
    Restart {
        role: String,
        host: Option<String>,
    },
    /// Ends every role, then the lab. The connection closes when all is gone.
    Down,
    /// Pulls a host's plug.
    HostKill {
        host: String,
    },
    HostStart {
        host: String,
    },
    /// The plan on disk is another: hosts that it has and the lab has not start, others end.
    Replan,
    /// Files are about to change: until this caller has gone, no changed manifest turns a role by itself.
    Hold,
    /// Files have changed and the plan on disk is another: goes by it, and restarts these roles, `ROLE@HOST`.
    /// Roles that somebody stopped stay stopped. Answered when all that turned serve again.
    Turn {
        restart: Vec<String>,
    },
    /// Runs a command in a host, on the descriptors that come along or on a terminal of its own.
    Exec(Exec),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exec {
    pub host: String,
    /// Empty for the login shell.
    pub argv: Vec<String>,
    /// Added to the host's own.
    pub env: Vec<(String, String)>,
    /// With a terminal, its other end comes with [`Reply::Started`]; without, send 0, 1 and 2.
    pub terminal: bool,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reply {
    Done,
    Failed {
        error: String,
    },
    Status(Status),
    Started {
        pid: i32,
    },
    /// The command of an [`Exec`] could not be.
    NotStarted {
        error: String,
    },
    /// As a shell gives it: 128 and the signal's number for a killed one.
    Exited {
        code: i32,
    },
}

/// A lab as its supervisor sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub hosts: Vec<HostStatus>,
    pub roles: Vec<RoleStatus>,
    pub port: u16,
    /// How many user and group ids the lab has.
    pub ids: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    pub name: String,
    /// Its init, as the machine numbers it; None when the plug is pulled.
    pub pid: Option<i32>,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    pub name: String,
    pub host: String,
    /// As the machine numbers it.
    pub pid: Option<i32>,
    /// As `ps` inside the host shows it.
    pub host_pid: Option<i32>,
    pub ready: bool,
    /// `waiting`, `starting`, `ready`, `unhealthy` (its liveness probe fails), `backing-off`, `stopping`,
    /// `stopped`, `finished`.
    pub state: String,
    pub restarts: u32,
    pub argv: Vec<String>,
    /// Why it could not even be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the keeper notes for whoever wants to talk to its lab.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pids {
    pub keeper: i32,
    pub supervisor: i32,
}

/// Why a running lab could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    #[error("lab {lab} is not running")]
    NotRunning { lab: String },
    #[error("cannot reach the supervisor of lab {lab}")]
    Connect { lab: String, source: io::Error },
    #[error("the connection to the lab failed")]
    Transfer { source: io::Error },
    #[error("the lab ended")]
    Ended,
    #[error("a message that cannot be read")]
    Message { source: serde_json::Error },
}

/// Where the keeper notes its [`Pids`].
pub fn pids_file(state: &Path) -> PathBuf {
    state.join("keeper.pid")
}

/// The directory on which the supervisor mounts the lab's own small file system.
pub fn run_directory(state: &Path) -> PathBuf {
    state.join("run")
}

/// Sends one message.
pub fn send(socket: &PacketSocket, message: &impl Serialize) -> Result<(), ProtocolError> {
    let bytes = serde_json::to_vec(message).expect("messages have only string keys");
    socket.send(&bytes, &[]).map_err(|source| ProtocolError::Transfer { source })
}

/// Receives one message; [`ProtocolError::Ended`] when there will be none.
pub fn receive<T: DeserializeOwned>(socket: &PacketSocket) -> Result<(T, Packet), ProtocolError> {
    let packet = socket.receive().map_err(|source| ProtocolError::Transfer { source })?;
    let (bytes, fds) = packet.ok_or(ProtocolError::Ended)?;
    let message = serde_json::from_slice(&bytes).map_err(|source| ProtocolError::Message { source })?;
    Ok((message, (bytes, fds)))
}

/// A connection to a running supervisor: one request, then its replies.
#[derive(Debug)]
pub struct Control {
    socket: PacketSocket,
    pids: Pids,
}

impl Control {
    /// Connects to the supervisor of a lab.
    pub fn connect(lab: &LabDir) -> Result<Control, ProtocolError> {
        if !lab.is_running() {
            return Err(ProtocolError::NotRunning { lab: lab.name.clone() });
        }
        let failed = |source| ProtocolError::Connect { lab: lab.name.clone(), source };
        let text = fs::read(pids_file(&lab.state)).map_err(failed)?;
        let pids: Pids = serde_json::from_slice(&text).map_err(|source| ProtocolError::Message { source })?;
        let run = run_directory(&lab.state);
        let inside = run.strip_prefix("/").unwrap_or(&run);
        let directory = Path::new("/proc").join(pids.supervisor.to_string()).join("root").join(inside);
        let socket = PacketSocket::connect(&directory, CONTROL).map_err(failed)?;
        Ok(Control { socket, pids })
    }

    /// The two processes that hold the lab.
    pub fn pids(&self) -> Pids {
        self.pids
    }

    /// Asks for a command; `fds` are its standard input, output and error, or none for a terminal.
    pub fn exec(&self, exec: Exec, fds: &[BorrowedFd<'_>]) -> Result<(), ProtocolError> {
        let bytes = serde_json::to_vec(&Request::Exec(exec)).expect("messages have only string keys");
        self.socket.send(&bytes, fds).map_err(|source| ProtocolError::Transfer { source })
    }

    /// The next reply, with the descriptors that came along.
    pub fn next(&self) -> Result<(Reply, Vec<OwnedFd>), ProtocolError> {
        receive(&self.socket).map(|(reply, (_, fds))| (reply, fds))
    }

    /// Asks, and waits for no answer.
    pub fn tell(&self, request: &Request) -> Result<(), ProtocolError> {
        send(&self.socket, request)
    }

    /// Asks, and waits for the answer.
    pub fn ask(&self, request: &Request) -> Result<Reply, ProtocolError> {
        send(&self.socket, request)?;
        Ok(receive(&self.socket)?.0)
    }

    /// Asks, and waits for the answer for so long; nothing when there was none.
    pub fn ask_within(&self, request: &Request, limit: Duration) -> Result<Option<Reply>, ProtocolError> {
        send(&self.socket, request)?;
        let deadline = Instant::now() + limit;
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match poll(&mut waiting, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(receive(&self.socket)?.0)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(ProtocolError::Transfer { source: errno.into() }),
            }
        }
    }

    /// The lab's state, with pids as the machine numbers them.
    pub fn status(&self) -> Result<Status, ProtocolError> {
        match self.ask(&Request::Status)? {
            Reply::Status(mut status) => {
                super::pids::translate(self.pids.supervisor, &mut status);
                Ok(status)
            }
            _ => Err(ProtocolError::Ended),
        }
    }
}
