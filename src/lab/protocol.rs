//! What the command line says to a lab: how a keeper is started and reports, and the control socket.
//!
//! A keeper is `minilab-keeper STATE RUNTIME PORT`, with `/dev/null` for input, one [`Progress`] a line on
//! standard output until the lab is up (or has failed), and its log on standard error. The control socket
//! is a SOCK_SEQPACKET one, 0600, a message a packet of JSON: the client sends one [`Request`] and reads
//! [`Reply`]s; after `Exec` it may go on with [`Request::Resize`] and [`Request::Signal`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A line of a starting keeper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Progress {
    /// A step is done: "Starting control", "kube-apiserver ready", …
    #[serde(rename_all = "camelCase")]
    Step { name: String, took_ms: f64 },
    /// Every role is ready; nothing more follows.
    Up,
    /// It did not work and nothing of it is left; nothing more follows.
    Failed { error: String, remedy: Option<String>, reason: Failure },
}

/// What kind of failure it was: it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// The port is somebody else's.
    PortTaken,
    /// This machine cannot: `doctor` says why.
    Machine,
    /// Anything else.
    Other,
}

/// From the command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Answered by [`Reply::Status`].
    Status,
    /// Answered by [`Reply::Changed`] when every role meant is (ready | ended).
    Change { what: Change, role: String, host: Option<String> },
    /// Runs a command in a host. Without `terminal` the packet carries its standard input, output and
    /// error; with it the terminal's outer end comes back with [`Reply::Started`]. Ends by [`Reply::Exited`].
    Exec { host: String, argv: Vec<String>, env: Vec<(String, String)>, terminal: bool },
    /// The user's terminal changed its size.
    Resize { rows: u16, columns: u16 },
    /// Sends a signal to what `Exec` started.
    Signal { signal: i32 },
    /// Stops every role in order, then the lab. Answered by [`Reply::Changed`] just before the end.
    Down,
}

/// What to do with a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    Start,
    Stop,
    Restart,
}

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    Status(LabStatus),
    /// What was changed, as `role@host`.
    Changed { roles: Vec<String> },
    Started { pid: i32 },
    Exited { code: i32 },
    Refused { error: String },
}

/// How the lab's processes are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabStatus {
    pub hosts: Vec<HostStatus>,
    pub roles: Vec<RoleStatus>,
    /// Ids mapped into the lab: 65536 or so, or 1.
    pub mapped_ids: u32,
}

/// A host's init, with its pid on the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    pub name: String,
    pub pid: Option<i32>,
    pub addresses: Vec<IpAddr>,
}

/// A role; pids as seen in its host (where `ps` shows them).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleStatus {
    pub name: String,
    pub host: String,
    pub pid: Option<i32>,
    pub ready: bool,
    /// It ran once and ended well, or a person stopped it: not being ready is as it should be.
    pub settled: bool,
    pub restarts: u32,
    pub argv: Vec<String>,
}
