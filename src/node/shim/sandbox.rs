//! A pod's sandbox: the namespaces its containers share, held by `pause`, and its way to the network.
//!
//! A pod has a user namespace of its own with the lab's ids, so that the kernel counts its processes apart
//! and its root is nobody elsewhere; pods of the node's network, pids or IPC stay in the lab's.
//! The network is a routed veth, no bridge: the pod has a /32 and its way out is 169.254.1.1, an address
//! every node end of a veth has; the node has a /32 route back.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use ipnet::Ipv4Net;
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::pause;
use super::protocol::SandboxPaths;
use super::spec::{SandboxNetwork, SandboxSpec};
use crate::sys::container::{self, Side};
use crate::sys::namespace::Network;
use crate::sys::netlink::{Netlink, NetlinkError, Route};
use crate::sys::packet::PacketSocket;

/// The way out of every pod.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("make {path}: {source}")]
    Directory { path: String, source: io::Error },
    #[error("clone the pod process: {0}")]
    Clone(io::Error),
    #[error("map the pod's ids: {0}")]
    Map(io::Error),
    #[error("{0}: {source}", source = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Network(NetlinkError),
    #[error("enter the pod's network: {0}")]
    Enter(io::Error),
    #[error("the pod process did not start: {0}")]
    Pause(String),
}

/// Which processes a pod's containers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pids {
    /// Each container only its own.
    Own,
    /// All of the pod (`shareProcessNamespace`).
    Pod,
    /// All of the node (`hostPID`).
    Host,
}

/// A living sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub spec: SandboxSpec,
    pub paths: SandboxPaths,
    pub pause: Pid,
    /// The way into the shared namespaces.
    pub pidfd: OwnedFd,
    /// Those that are the pod's own.
    pub namespaces: CloneFlags,
    pub pids: Pids,
    veth: Option<String>,
}

impl Sandbox {
    /// Makes everything; on failure nothing is left (`pause` dies with the shim).
    pub fn make(id: &str, spec: SandboxSpec, paths: SandboxPaths) -> Result<Sandbox, SandboxError> {
        prepare_directories(&spec, &paths)?;
        let namespaces = namespaces(&spec);
        let (ours, theirs) = PacketSocket::pair().map_err(SandboxError::Clone)?;
        let always = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        let pause = match container::fork(namespaces | always).map_err(SandboxError::Clone)? {
            Side::Child => {
                drop(ours);
                pause::start(&spec, namespaces, &paths.bin, theirs)
            }
            Side::Parent(pid) => pid,
        };
        drop(theirs);
        if namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            container::map_identically(pause).map_err(SandboxError::Map)?;
        }
        ours.send(b"mapped", &[]).map_err(|error| SandboxError::Pause(error.to_string()))?;
        let veth = match spec.network {
            SandboxNetwork::Host => None,
            SandboxNetwork::Pod { address } => {
                let name = format!("veth{}", &id[..8]);
                plug(&name, address, pause)?;
                Some(name)
            }
        };
        match ours.receive() {
            Ok(Some((word, _))) if word == pause::READY => {}
            Ok(Some((word, _))) => return Err(SandboxError::Pause(String::from_utf8_lossy(&word).into())),
            _ => return Err(SandboxError::Pause("it ended".into())),
        }
        let pidfd = container::pidfd(pause).map_err(SandboxError::Clone)?;
        let pids = match (spec.host_pid, spec.share_process_namespace) {
            (true, _) => Pids::Host,
            (false, true) => Pids::Pod,
            (false, false) => Pids::Own,
        };
        Ok(Sandbox { spec, paths, pause, pidfd, namespaces, pids, veth })
    }

    /// Takes the pod from the network at once; the kernel would do it too, but later.
    pub fn unplug(&self) {
        if let Some(name) = &self.veth
            && let Ok(mut netlink) = Netlink::open()
            && let Err(error) = netlink.delete_link(name)
        {
            tracing::warn!(link = %name, %error, "cannot remove a pod's link");
        }
    }

    /// Ends the pod process.
    pub fn kill(&self) {
        // Gone already is what is wanted.
        let _ = kill(self.pause, Signal::SIGKILL);
    }
}

/// The namespaces that are the pod's own, by what it asks for.
fn namespaces(spec: &SandboxSpec) -> CloneFlags {
    let host_network = spec.network == SandboxNetwork::Host;
    let mut flags = CloneFlags::empty();
    // With the network the node's name is shared, as upstream has it.
    flags.set(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS, !host_network);
    flags.set(CloneFlags::CLONE_NEWIPC, !spec.host_ipc);
    flags.set(CloneFlags::CLONE_NEWUSER, !(host_network || spec.host_pid || spec.host_ipc));
    flags
}

fn prepare_directories(spec: &SandboxSpec, paths: &SandboxPaths) -> Result<(), SandboxError> {
    let failed = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |source| SandboxError::Directory { path, source }
    };
    let shared = paths.shared_memory();
    for path in [&paths.state, &shared, &paths.mount_point(), &spec.log_directory] {
        fs::create_dir_all(path).map_err(failed(path))?;
    }
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).map_err(failed(&shared))?;
    let hostname = paths.hostname();
    fs::write(&hostname, format!("{}\n", spec.hostname)).map_err(failed(&hostname))
}

/// Joins the pod's network to the node's.
fn plug(name: &str, address: Ipv4Addr, pause: Pid) -> Result<(), SandboxError> {
    let pod = Network::of(pause.as_raw() as u32).map_err(SandboxError::Enter)?;
    let mut node = Netlink::open().map_err(SandboxError::Network)?;
    node.add_veth(name, "eth0", pod.as_fd()).map_err(SandboxError::Network)?;
    let mut inside = pod.enter(Netlink::open).map_err(SandboxError::Enter)?.map_err(SandboxError::Network)?;
    (|| {
        let host = Ipv4Net::from(address);
        let lo = inside.index("lo")?;
        inside.set_up(lo)?;
        let eth0 = inside.index("eth0")?;
        inside.add_address(eth0, host)?;
        inside.set_up(eth0)?;
        inside.replace_route(Route {
            destination: Ipv4Net::default(),
            via: Some(GATEWAY),
            link: Some(eth0),
        })?;
        let veth = node.index(name)?;
        node.add_silent_address(veth, GATEWAY)?;
        node.set_up(veth)?;
        node.replace_route(Route::on(host, veth))
    })()
    .inspect_err(|_| {
        // The error above is the one to report.
        let _ = Netlink::open().and_then(|mut node| node.delete_link(name));
    })
    .map_err(SandboxError::Network)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A pod that asks for nothing.
    pub fn pod(name: &str) -> SandboxSpec {
        SandboxSpec {
            pod_uid: format!("uid-of-{name}"),
            pod_name: name.into(),
            pod_namespace: "default".into(),
            attempt: 0,
            hostname: name.into(),
            network: SandboxNetwork::Pod { address: Ipv4Addr::new(10, 244, 1, 2) },
            host_pid: false,
            host_ipc: false,
            share_process_namespace: false,
            sysctls: Default::default(),
            log_directory: format!("/var/log/pods/default_{name}_uid-of-{name}").into(),
        }
    }

    #[test]
    fn pods_of_the_nodes_namespaces_stay_in_the_labs_user_namespace() {
        let own = namespaces(&pod("a"));
        assert!(
            own.contains(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
        );
        let host = namespaces(&SandboxSpec { network: SandboxNetwork::Host, ..pod("a") });
        assert_eq!(host, CloneFlags::CLONE_NEWIPC);
        assert!(!namespaces(&SandboxSpec { host_pid: true, ..pod("a") }).contains(CloneFlags::CLONE_NEWUSER));
    }
}
