//! What the supervisor and a host's init say to each other, one message at a time.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The environment variable that names init's end of the connection.
pub const ORDERS: &str = "MINILAB_ORDERS_FD";

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// The first one: make the host's root.
    Build(Blueprint),
    /// Start a process; its descriptors come with the message.
    Run(Run),
    /// Signal a process started before, or with `group` all of its process group.
    Signal { id: u64, signal: i32, group: bool },
}

/// What a host's root is made of.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blueprint {
    pub host: String,
    /// Where the root is put together.
    pub root: PathBuf,
    /// What is kept of the host: `etc`, `var`, `root`, `home`.
    pub kept: PathBuf,
    /// The minilab binary.
    pub binary: PathBuf,
    /// More of the machine to show: from there, at this place in the host.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// For `/etc/hosts`.
    pub names: Vec<(IpAddr, String)>,
}

/// A process to start in a host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The supervisor's name for it.
    pub id: u64,
    /// The program is looked for on the environment's PATH.
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// The number each descriptor of the message gets.
    pub places: Vec<i32>,
    /// On a terminal of its own, whose other end comes back with [`Notice::Started`].
    pub terminal: bool,
    pub directory: Option<String>,
}

/// From init.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Notice {
    /// The root is made; processes can be started.
    Built,
    /// The root cannot be made. Init ends.
    NotBuilt {
        error: String,
    },
    Started {
        id: u64,
        /// In the host's pid namespace.
        pid: i32,
    },
    NotStarted {
        id: u64,
        error: String,
    },
    Exited {
        id: u64,
        exit: Exit,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As a shell gives it.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(out, "exit code {code}"),
            Exit::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(signal) => write!(out, "signal {signal}"),
                Err(_) => write!(out, "signal {signal}"),
            },
        }
    }
}
