//! SSH tunnels as they were until Kubernetes 1.22 removed them: sshd on every node, a login key for all of
//! them on the control plane, and the two flags that made the API server use it.
//!
//! The paths are those of kube-up's GCE scripts, whose cloud provider pushed the key to the nodes; here the
//! plan does. Upstream never checked a host's key: the file that pins them, and the flag that names it, are
//! minilab's own.

use std::path::PathBuf;

use super::build::{CONTROL, node_address, node_name};
use super::control::{template, text};
use super::{Bar, Command, Contents, PlannedFile, RolePlan};
use crate::lab::paths::{Mode, Setting, Settings};

/// Who logs in.
const USER: &str = "root";
/// The name of the login's key in the lab's material.
const LOGIN: &str = "login";
const KEYFILE: &str = "/etc/srv/sshproxy/.sshkeyfile";
const KNOWN_HOSTS: &str = "/etc/srv/sshproxy/known_hosts";
const PORT: u16 = 22;
const CONFIG: &str = "/etc/ssh/sshd_config";
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

fn wanted(settings: &Settings) -> bool {
    settings.mode(Setting::EgressTunnel) == Mode::Partial
}

fn pinned(settings: &Settings) -> bool {
    wanted(settings) && settings.hardened(Setting::EgressSshHostKey)
}

/// Everything from control to the nodes has to go through sshd.
pub fn bars(settings: &Settings) -> Vec<Bar> {
    if wanted(settings) { vec![Bar { from: CONTROL, but: Some(PORT) }] } else { Vec::new() }
}

/// What the API server is told.
pub fn flags(settings: &Settings) -> Vec<String> {
    if !wanted(settings) {
        return Vec::new();
    }
    let mut flags = vec![format!("--ssh-user={USER}"), format!("--ssh-keyfile={KEYFILE}")];
    if pinned(settings) {
        flags.push(format!("--minilab-ssh-known-hosts={KNOWN_HOSTS}"));
    }
    flags
}

/// The key that opens every node, and whom it may be shown to.
pub fn control_files(settings: &Settings, nodes: &[usize]) -> Vec<PlannedFile> {
    if !wanted(settings) {
        return Vec::new();
    }
    let mut files = vec![
        key(KEYFILE, LOGIN),
        template(&format!("{KEYFILE}.pub"), format!("${{ssh-public:{LOGIN}}} {USER}@control\n")),
    ];
    if pinned(settings) {
        let line =
            |number: &usize| format!("{} ${{ssh-public:{}}}\n", node_address(*number), node_name(*number));
        files.push(template(KNOWN_HOSTS, nodes.iter().map(line).collect()));
    }
    files
}

/// What is on a node named `name`.
pub fn node_files(settings: &Settings, name: &str) -> Vec<PlannedFile> {
    if !wanted(settings) {
        return Vec::new();
    }
    let config = format!(
        "Port {PORT}
HostKey {HOST_KEY}
AuthorizedKeysFile /etc/ssh/authorized_keys/%u
PermitRootLogin prohibit-password
PasswordAuthentication no
AllowTcpForwarding local
"
    );
    vec![
        text(CONFIG, 0o600, config),
        key(HOST_KEY, name),
        template(
            &format!("/etc/ssh/authorized_keys/{USER}"),
            format!("${{ssh-public:{LOGIN}}} {USER}@control\n"),
        ),
    ]
}

/// sshd in the foreground, logging to standard error.
pub fn role(settings: &Settings, host: &str) -> Option<RolePlan> {
    let argv = ["sshd", "-D", "-e", "-f", CONFIG].map(str::to_owned).to_vec();
    // It reads every file above, so that it turns with any of them.
    wanted(settings).then(|| RolePlan {
        name: "sshd".into(),
        host: host.into(),
        command: Command::Argv { argv, flags_from: None },
        listeners: Vec::new(),
        cloud: false,
        needs: Vec::new(),
        one_shot: false,
    })
}

fn key(path: &str, name: &str) -> PlannedFile {
    PlannedFile { path: PathBuf::from(path), mode: 0o600, contents: Contents::SshKey(name.into()) }
}
