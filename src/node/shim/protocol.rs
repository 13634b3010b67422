//! What a kubelet and a shim say to each other, and where on the node they meet.
//!
//! One Unix socket a shim; JSON, a line a message, both ways. Every request is answered under its number;
//! after [`Request::Watch`] the shim also sends its state, under number 0, whenever it changes. Descriptors
//! travel beside the answer that names them. A request a shim does not know is refused, not fatal: shims
//! outlive kubelets, so the kubelet may be the newer one. Stands for containerd's ttrpc between it and its
//! shims.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::{AttachSpec, ContainerSpec, ExecSpec, SandboxStatus};

/// A longer line ends the connection. A pod's whole specification is at most a tenth of it.
pub const LONGEST_LINE: usize = 16 << 20;

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    pub id: u64,
    pub request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Answers the state, and sends it again after every change.
    Watch,
    /// Makes and starts a container under an id the caller chose.
    Start { container: String, spec: Box<ContainerSpec> },
    /// SIGTERM, and SIGKILL after the grace; answered when the container is over.
    #[serde(rename_all = "camelCase")]
    Stop { container: String, grace_ms: u64 },
    /// Forgets a container, killing it first if it runs.
    Remove { container: String },
    /// Opens the container's log anew, after its file was moved away.
    ReopenLog { container: String },
    /// Runs a further command in a running container. Answered when it runs, with its streams, and once more
    /// with its exit code when it has ended; with `leash` it is killed when the asker goes away before that.
    Exec { container: String, exec: String, spec: Box<ExecSpec>, leash: bool },
    /// Joins the streams of a running container. Answered with them, and once more when the container ends.
    Attach { container: String, spec: AttachSpec },
    /// Gives a TCP socket of the pod's network, connected to nothing yet.
    Socket { v6: bool },
    /// Kills every container, takes the pod's network away and ends the shim.
    StopSandbox,
}

/// The answer to a request, or news.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number; 0 for news.
    pub id: u64,
    pub state: Option<State>,
    pub refusal: Option<Refusal>,
    /// What the descriptors beside this answer are, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<Given>,
    /// How what was asked for ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Where the pod's network namespace is found, with a socket of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Given {
    Stdin,
    Stdout,
    Stderr,
    /// The terminal's outer end, for its size.
    Terminal,
    Socket,
}

impl Answer {
    fn to(id: u64) -> Answer {
        Answer { id, state: None, refusal: None, given: Vec::new(), exit_code: None, network: None }
    }

    pub fn state(id: u64, state: State) -> Answer {
        Answer { state: Some(state), ..Answer::to(id) }
    }

    pub fn refused(id: u64, refusal: Refusal) -> Answer {
        Answer { refusal: Some(refusal), ..Answer::to(id) }
    }

    pub fn given(id: u64, given: Vec<Given>) -> Answer {
        Answer { given, ..Answer::to(id) }
    }

    pub fn ended(id: u64, exit_code: i32) -> Answer {
        Answer { exit_code: Some(exit_code), ..Answer::to(id) }
    }
}

/// A shim's whole state; the one with the higher number is the newer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub number: u64,
    pub sandbox: SandboxStatus,
}

/// Why a shim would not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
}

/// Which of the kubelet's reasons a refusal is reported under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RefusalKind {
    /// `CreateContainerConfigError`: the specification cannot be followed on this machine.
    Config,
    /// `CreateContainerError`
    Create,
    /// `RunContainerError`: made, but its program would not start.
    Start,
    /// No such container.
    NotFound,
    /// The container is not running.
    NotRunning,
    /// The command could not be run in the container.
    Exec,
    /// The shim is older than the request.
    Unknown,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into() }
    }

    /// A step of making a container that the system refused, in the words runtimes use.
    pub fn create(step: impl std::fmt::Display, error: impl std::fmt::Display) -> Refusal {
        Refusal::new(RefusalKind::Create, format!("failed to create containerd task: {step}: {error}"))
    }
}

/// What the daemon says on its standard output once, when the sandbox is made or cannot be.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Birth {
    Ready(Box<State>),
    Failed(String),
}

/// The directories of a node's shims.
#[derive(Debug, Clone)]
pub struct Directories {
    /// On disk: a directory a sandbox, with its record and the writable layers of its containers.
    pub state: PathBuf,
    /// In memory: sockets and locks. Gone after the node's power was cut.
    pub run: PathBuf,
    /// The links named after roles.
    pub bin: PathBuf,
}

impl Default for Directories {
    fn default() -> Directories {
        Directories {
            state: "/var/lib/containerd/minilab".into(),
            run: "/run/containerd/minilab".into(),
            bin: "/opt/minilab/bin".into(),
        }
    }
}

impl Directories {
    pub fn sandbox(&self, id: &str) -> SandboxPaths {
        SandboxPaths { state: self.state.join(id), run: self.run.join(id), bin: self.bin.clone() }
    }
}

/// The paths of one sandbox.
#[derive(Debug, Clone)]
pub struct SandboxPaths {
    pub state: PathBuf,
    pub run: PathBuf,
    pub bin: PathBuf,
}

impl SandboxPaths {
    pub fn record(&self) -> PathBuf {
        self.state.join("status.json")
    }

    pub fn socket(&self) -> PathBuf {
        self.run.join("shim.sock")
    }

    /// Locked by the shim as long as it lives; holds its pid.
    pub fn lock(&self) -> PathBuf {
        self.run.join("shim.pid")
    }

    /// The pod's `/dev/shm`, shared by its containers.
    pub fn shared_memory(&self) -> PathBuf {
        self.run.join("shm")
    }

    pub fn hostname(&self) -> PathBuf {
        self.run.join("hostname")
    }

    /// An empty directory for a container to build its root on, in a mount namespace of its own.
    pub fn mount_point(&self) -> PathBuf {
        self.run.join("rootfs")
    }

    /// A container's writable layer.
    pub fn container(&self, id: &str) -> PathBuf {
        self.state.join(id)
    }
}

/// Whether a directory's name is a sandbox's or container's id.
pub fn is_id(name: &Path) -> bool {
    name.to_str().is_some_and(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A line as it goes over the socket.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("these types have string keys and finite numbers");
    line.push(b'\n');
    line
}
