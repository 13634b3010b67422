//! What a lab is to be, decided before anything is made: per host its files and roles, and the objects
//! the API starts with.
//!
//! A [`Plan`] holds no secret: a file that needs one names it ([`Contents`]) and [`super::files`] fills it
//! in from the lab's material. It stands for what an administrator and kubeadm together decide for a real
//! cluster. The supervisor reads it as `plan.json` from the lab's directory.

mod approver;
mod build;
mod control;
mod difference;
mod edit_role;
mod konnectivity;
mod manifest;
mod node;
mod objects;
mod ssh;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hostroot;

pub use build::{BALANCER, CLUSTER_DOMAIN, CONTROL, KUBERNETES_SERVICE, KUBERNETES_VERSION, endpoint, plan};
#[cfg(test)]
pub use control::KUBEADM_CONFIG;
pub use control::{MANIFESTS, from_manifest};
pub use difference::{Difference, Direction, FileChange, ObjectChange, RoleChange, Turn, readers};
pub use node::{BOOTSTRAP, KUBELET_CONF};

/// A whole lab.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// In the order they are set up: wire, control, switch, nodes.
    pub hosts: Vec<HostPlan>,
    /// Doors on `wire` that lead elsewhere: the control plane's load-balancer address.
    pub forwards: Vec<Forward>,
    /// Who may not open connections to the other site.
    #[serde(default)]
    pub bars: Vec<Bar>,
    /// Objects the settings ask for, applied by field manager `minilab`.
    pub objects: Vec<Value>,
}

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostKind {
    /// The untrusted router between the sites.
    Wire,
    /// The control plane's machine.
    Control,
    /// The node site's bridge.
    Switch,
    /// A node; `node-N` counts from 1.
    Node,
}

/// One host: a set of namespaces that feels like a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPlan {
    pub name: String,
    pub kind: HostKind,
    /// With their prefix: `198.51.100.2/24`.
    pub addresses: Vec<IpNet>,
    /// Where everything else goes; the wire itself has no way out.
    pub gateway: Option<IpAddr>,
    pub files: Vec<PlannedFile>,
    /// What its roles write themselves (a kubelet its kubeconfig, `kubeadm join` its configuration), as it is
    /// to be once they have: a switch changes it, `up` does not make it.
    #[serde(default)]
    pub grown: Vec<PlannedFile>,
    pub roles: Vec<RolePlan>,
}

/// A connection to `at` on wire goes on to `to`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    pub at: SocketAddr,
    pub to: SocketAddr,
}

/// Wire drops, and counts, every new connection from this address to anywhere outside its own site.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bar {
    pub from: std::net::Ipv4Addr,
    /// Only connections to this TCP port pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub but: Option<u16>,
}

/// A file as an administrator would have written it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedFile {
    /// Absolute, inside the host.
    pub path: PathBuf,
    /// Permission bits, for example 0o600.
    pub mode: u32,
    pub contents: Contents,
}

/// What is in a file. Secrets are named, never held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Contents {
    /// These bytes.
    Text(String),
    /// This text with `${bootstrap-token}`, `${static-token}`, `${ca-cert-hash}` and `${ssh-public:NAME}` replaced
    /// by the lab's.
    Template(String),
    /// PEM of the certificate of that name (`apiserver`, `ca`, …).
    Certificate(String),
    /// PEM of its private key.
    Key(String),
    /// PEM of a public key (`sa.pub`).
    PublicKey(String),
    /// An SSH key of that name, in OpenSSH's form.
    SshKey(String),
    /// A kubeconfig with everything embedded.
    Kubeconfig(Kubeconfig),
    /// The kubeconfig a kubelet writes after TLS bootstrapping, which names its certificate by a link.
    #[serde(rename_all = "camelCase")]
    OwnKubeconfig { server: String, trust: Trust, certificate: String },
}

/// A kubeconfig to be rendered, named as kubeadm names its parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kubeconfig {
    pub server: String,
    pub user: String,
    pub trust: Trust,
    pub credential: Credential,
}

/// How the reader of a kubeconfig knows the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// `certificate-authority-data`: only the cluster's own CA is believed.
    ClusterCa,
    /// `insecure-skip-tls-verify: true`.
    ///
    /// # Warning
    /// Whoever stands on the wire can be the API server. The safe sibling is [`Trust::ClusterCa`].
    Skipped,
}

/// Who the reader of a kubeconfig says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Credential {
    /// The client certificate and key of that name.
    Certificate(String),
    /// The lab's bootstrap token.
    BootstrapToken,
    /// One powerful token that every node shares.
    ///
    /// # Warning
    /// Whoever reads it on one node is every node, and more. The safe sibling is TLS bootstrapping.
    StaticToken,
}

/// One role on one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolePlan {
    /// The component's real name, which is also the link it is started through.
    pub name: String,
    pub host: String,
    pub command: Command,
    /// Passed by systemd's convention, in this order.
    pub listeners: Vec<Listener>,
    /// Gets the supervisor's end of the route controller's socket (`MINILAB_CLOUD_FD`).
    pub cloud: bool,
    /// Roles (`name` on any host) that must be ready before this one starts.
    pub needs: Vec<String>,
    /// Runs once and is ready when it ended with success; started again after a failure.
    pub one_shot: bool,
}

/// Where a role's command line is read from at every start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// `spec.containers[0].command` of a static-pod manifest; a change of the file restarts the role.
    Manifest(PathBuf),
    /// These words, then those of `KUBELET_KUBEADM_ARGS` in the file, as the kubelet's systemd unit does.
    #[serde(rename_all = "camelCase")]
    Argv { argv: Vec<String>, flags_from: Option<PathBuf> },
}

/// A listening socket that outlives its role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name in `LISTEN_FDNAMES`.
    pub name: String,
    pub at: ListenAt,
}

/// Where a role's listener is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListenAt {
    /// In the role's host.
    Inside(SocketAddr),
    /// On the machine's loopback, made by the keeper: the lab's port.
    Machine,
}

/// Why a role's command line could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is not valid YAML")]
    Parse { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("{path} has no spec.containers[0].command")]
    NoCommand { path: PathBuf },
}

impl Plan {
    /// Every role, host by host.
    pub fn roles(&self) -> impl Iterator<Item = &RolePlan> {
        self.hosts.iter().flat_map(|host| &host.roles)
    }

    pub fn has_role(&self, name: &str, host: &str) -> bool {
        self.roles().any(|role| role.name == name && role.host == host)
    }
}

impl Command {
    /// The file whose change restarts the role by itself.
    pub fn watched(&self) -> Option<&Path> {
        match self {
            Self::Manifest(path) => Some(path),
            Self::Argv { .. } => None,
        }
    }

    /// The command line now; `read` gives a file of the role's host.
    pub fn argv(&self, read: impl Fn(&Path) -> std::io::Result<String>) -> Result<Vec<String>, CommandError> {
        let text =
            |path: &Path| read(path).map_err(|source| CommandError::Read { path: path.to_owned(), source });
        match self {
            Self::Manifest(path) => command_of_manifest(path, &text(path)?),
            Self::Argv { argv, flags_from: None } => Ok(argv.clone()),
            Self::Argv { argv, flags_from: Some(path) } => {
                let flags = text(path)?;
                Ok(argv.iter().cloned().chain(kubeadm_flags(&flags)).collect())
            }
        }
    }
}

/// `command` followed by `args` of a static pod's first container.
fn command_of_manifest(path: &Path, text: &str) -> Result<Vec<String>, CommandError> {
    let pod: Value = serde_yaml_ng::from_str(text)
        .map_err(|source| CommandError::Parse { path: path.to_owned(), source })?;
    let container = &pod["spec"]["containers"][0];
    let words = |field: &str| -> Vec<String> {
        let list = container[field].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let mut argv = words("command");
    let Some(program) = argv.first_mut() else {
        return Err(CommandError::NoCommand { path: path.to_owned() });
    };
    // An image that is built in has its program at its root, where a host has nothing.
    if let Some(name) = program.strip_prefix('/').filter(|name| hostroot::LINKS.contains(name)) {
        *program = name.to_owned();
    }
    argv.extend(words("args"));
    Ok(argv)
}

/// The words of `KUBELET_KUBEADM_ARGS="--a=b --c"`.
fn kubeadm_flags(text: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("KUBELET_KUBEADM_ARGS="));
    let words = line.unwrap_or_default().trim_matches(['"', '\'']);
    words.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_gives_its_first_containers_command_and_args() {
        let text = "spec: {containers: [{command: [kube-scheduler, --v=2], args: [--x]}]}";
        let command = Command::Manifest("/m.yaml".into());
        let argv = command.argv(|_| Ok(text.to_owned())).unwrap();
        assert_eq!(argv, ["kube-scheduler", "--v=2", "--x"]);
    }

    #[test]
    fn a_program_at_an_images_root_is_the_role_of_that_name() {
        let text = "spec: {containers: [{command: [/proxy-server, --a]}]}";
        let argv = Command::Manifest("/m.yaml".into()).argv(|_| Ok(text.to_owned())).unwrap();
        assert_eq!(argv, ["proxy-server", "--a"]);
    }

    #[test]
    fn a_manifest_without_a_command_is_refused_with_its_path() {
        let error = Command::Manifest("/m.yaml".into()).argv(|_| Ok("spec: 3".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "/m.yaml has no spec.containers[0].command");
    }

    #[test]
    fn kubelet_flags_follow_the_fixed_ones() {
        let command = Command::Argv { argv: vec!["kubelet".into()], flags_from: Some("/flags.env".into()) };
        let argv = command.argv(|_| Ok("KUBELET_KUBEADM_ARGS=\"--a=b  --c\"\n".to_owned())).unwrap();
        assert_eq!(argv, ["kubelet", "--a=b", "--c"]);
    }
}
