//! What the kubelet asks of a shim and what it hears back (the part CRI plays upstream).
//!
//! Times are RFC 3339 text with nanoseconds in UTC, as CRI log lines have them; ids are 64 hex digits.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pod's sandbox: the namespaces its containers share.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    pub pod_uid: String,
    pub pod_name: String,
    pub pod_namespace: String,
    /// Counts sandboxes made for the same pod, from 0.
    pub attempt: u32,
    pub hostname: String,
    pub network: SandboxNetwork,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    /// Namespaced sysctls asked for by the pod (`net.ipv4.ip_unprivileged_port_start` …).
    pub sysctls: BTreeMap<String, String>,
    /// `/var/log/pods/NAMESPACE_NAME_UID`.
    pub log_directory: PathBuf,
}

/// How a pod reaches the network.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub enum SandboxNetwork {
    /// The node's own network namespace (`hostNetwork: true`).
    Host,
    /// A network namespace with a routed veth: the address is a /32, the way out is 169.254.1.1.
    Pod { address: Ipv4Addr },
}

/// One container to make in a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    pub name: String,
    /// The restart count: 0 for the first.
    pub attempt: u32,
    /// As the pod wrote it.
    pub image: String,
    /// The pod's `command` and `args`; where empty, the image's entrypoint and command, by Kubernetes' rules.
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    /// In order; later ones win. The image's own come first and are added by the shim.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    /// Relative to the sandbox's log directory: `NAME/ATTEMPT.log`.
    pub log_path: PathBuf,
    pub security: Security,
    pub limits: Limits,
    /// `oom_score_adj`: by the pod's quality of service class.
    #[serde(default = "first_to_go")]
    pub oom_score: i32,
    /// The name of a running container whose processes this one sees (an ephemeral container's target).
    #[serde(default)]
    pub target: Option<String>,
}

/// A further command in a running container.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExecSpec {
    pub command: Vec<String>,
    /// A terminal for all three streams, with which there is no separate standard error.
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// The terminal's first size: columns, rows.
    pub size: Option<(u16, u16)>,
}

/// Which of a running container's streams to join. Of a terminal, standard output is everything.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AttachSpec {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub read_only: bool,
}

/// The security context after merging pod and container level.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    pub run_as_non_root: bool,
    pub privileged: bool,
    /// `false` sets no-new-privileges.
    pub allow_privilege_escalation: Option<bool>,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub read_only_root_filesystem: bool,
    /// `RuntimeDefault` or `Unconfined` (upstream's default when unset).
    pub seccomp: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    pub cpu_millis: Option<u64>,
}

/// What a best-effort container has.
fn first_to_go() -> i32 {
    1000
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ContainerPhase {
    Created,
    Running,
    Exited,
}

/// One container as its shim sees it now.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub phase: ContainerPhase,
    /// In the node's pid namespace, while it runs.
    pub pid: Option<u32>,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerCannotRun`.
    pub reason: Option<String>,
    pub message: Option<String>,
    pub image: String,
    /// `docker.io/minilab/toolbox@sha256:…` or an id of an image without a digest.
    pub image_id: String,
    /// Absolute.
    pub log_path: PathBuf,
}

/// A sandbox and its containers, also of a pod that is over, until it is removed.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    pub id: String,
    pub spec: SandboxSpec,
    /// The pod process (`pause`) lives and the shim answers.
    pub ready: bool,
    pub created_at: String,
    pub containers: Vec<ContainerStatus>,
}
