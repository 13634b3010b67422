//! `hostPort`: a port of the node that leads into a pod, by nftables in the node's network.
//!
//! On a node with containerd the CNI plugin `portmap` does this when the sandbox is made; the table and its
//! chains have that plugin's names and layout. What is mapped is kept beside the pods' addresses, so that a
//! new kubelet knows it before it knows its pods. Left out: the node's own loopback address, for which
//! `portmap` sets `route_localnet`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::PodError;
use crate::sys::conntrack;
use crate::sys::nft::{ChainKind, Family, Hook, Protocol, Rule, Table, priority};

const NAME: &str = "cni_hostport";
/// Where the plugin's results are cached by its runtime.
const DIRECTORY: &str = "/var/lib/cni/portmap";

/// One port of the node and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    protocol: String,
    host_port: u16,
    /// One address of the node only.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "hostIP")]
    host_ip: Option<Ipv4Addr>,
    address: Ipv4Addr,
    container_port: u16,
}

/// The host ports of this node's pods.
pub struct HostPorts {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_pod: BTreeMap<String, Vec<Mapping>>,
    /// What the kernel holds, as far as we wrote it.
    written: Option<Table>,
}

impl HostPorts {
    /// Reads what a kubelet before this one mapped, and sees to it that the kernel has it.
    pub fn load() -> Result<Self, PodError> {
        Self::load_from(Path::new(DIRECTORY))
    }

    fn load_from(directory: &Path) -> Result<Self, PodError> {
        let failed = |source| PodError::Io { what: "keep host ports in", path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut state = State::default();
        for entry in std::fs::read_dir(directory).map_err(failed)?.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if let (Ok(uid), Ok(mappings)) = (entry.file_name().into_string(), serde_json::from_str(&text)) {
                state.by_pod.insert(uid, mappings);
            }
        }
        if !state.by_pod.is_empty() {
            state.write();
        }
        Ok(Self { directory: directory.to_owned(), state: Mutex::new(state) })
    }

    /// Leads a pod's host ports to its address.
    pub fn open(&self, uid: &str, pod: &Pod, address: Ipv4Addr) -> Result<(), PodError> {
        let wanted = mappings(pod, address);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.by_pod.get(uid).map(Vec::as_slice).unwrap_or_default() == wanted {
            return Ok(());
        }
        let path = self.directory.join(uid);
        let io = |source| PodError::Io { what: "keep host ports in", path: path.clone(), source };
        let text = serde_json::to_string(&wanted).map_err(|error| io(error.into()))?;
        std::fs::write(&path, text).map_err(io)?;
        state.by_pod.insert(uid.to_owned(), wanted);
        state.write();
        Ok(())
    }

    /// Takes a pod's host ports away.
    pub fn close(&self, uid: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(gone) = state.by_pod.remove(uid) else { return };
        // Gone already is as good.
        let _ = std::fs::remove_file(self.directory.join(uid));
        state.write();
        forget(&gone);
    }

    /// Takes away what belongs to pods that are no more.
    pub fn retain(&self, living: impl Fn(&str) -> bool) {
        let pods: Vec<String> = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.by_pod.keys().filter(|uid| !living(uid)).cloned().collect()
        };
        pods.iter().for_each(|uid| self.close(uid));
    }
}

impl State {
    /// A kernel that refuses costs the ports, not the pod.
    fn write(&mut self) {
        let table = table(self.by_pod.values().flatten());
        let replace = || table.replace(Family::Ip, NAME).commit();
        let outcome = match self.written.take() {
            None => replace(),
            // Somebody else may have changed it meanwhile.
            Some(old) => table.difference(&old, Family::Ip, NAME).commit().or_else(|_| replace()),
        };
        match outcome {
            Ok(()) => self.written = Some(table),
            Err(error) => warn!(%error, "Cannot write the table of host ports"),
        }
    }
}

/// A UDP conversation would go on to the address of a pod that is gone.
fn forget(gone: &[Mapping]) {
    let was = |flow: &conntrack::Flow| {
        let to = flow.reply.source;
        flow.original.protocol == Protocol::Udp as u8
            && gone.iter().any(|one| (one.address, one.container_port) == to)
    };
    if gone.iter().any(|one| one.protocol == "UDP") {
        for flow in conntrack::flows().unwrap_or_default().iter().filter(|flow| was(flow)) {
            // Ended by itself meanwhile.
            let _ = conntrack::forget(flow);
        }
    }
}

/// What a pod asks for, of containers that run all along.
fn mappings(pod: &Pod, address: Ipv4Addr) -> Vec<Mapping> {
    let Some(spec) = pod.spec.as_ref().filter(|spec| spec.host_network != Some(true)) else {
        return Vec::new();
    };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|one| one.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let given = port.host_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
            Some(Mapping {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                host_port: u16::try_from(port.host_port?).ok().filter(|port| *port != 0)?,
                host_ip: given.filter(|ip| !ip.is_unspecified()),
                address,
                container_port: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}

fn table<'a>(mappings: impl Iterator<Item = &'a Mapping>) -> Table {
    let mut table = Table::default();
    for chain in ["hostip_hostports", "hostports", "masquerading"] {
        table.chain(chain);
    }
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        table.base_chain(chain, ChainKind::Nat, hook, priority::DSTNAT);
        table.rule(chain, Rule::new().jump("hostip_hostports"));
        table.rule(chain, Rule::new().destination_outside(LOOPBACK).destination_is_local().jump("hostports"));
    }
    table.base_chain("masquerading", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT);
    for one in mappings {
        let protocol = match one.protocol.as_str() {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let (chain, rule) = match one.host_ip {
            Some(ip) => ("hostip_hostports", Rule::new().destination(Ipv4Net::from(ip))),
            None => ("hostports", Rule::new()),
        };
        let to = rule.destination_port(protocol, one.host_port).dnat(one.address, one.container_port);
        table.rule(chain, to);
        // A pod that reaches itself by the node's port must see another's address.
        let own = Ipv4Net::from(one.address);
        table.rule("masquerading", Rule::new().source(own).destination(own).masquerade());
    }
    table
}

const LOOPBACK: Ipv4Net = match Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Ok(net) => net,
    Err(_) => panic!("eight is a prefix length"),
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_asked_for_by_containers_that_run_all_along() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "once", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "beside", "restartPolicy": "Always", "ports": [{"containerPort": 2, "hostPort": 20}]},
            ],
            "containers": [{"name": "web", "ports": [
                {"containerPort": 80}, {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.11"},
            ]}],
        }}))
        .unwrap();
        let address = Ipv4Addr::new(10, 244, 1, 5);
        let asked = mappings(&pod, address);
        let seen: Vec<_> =
            asked.iter().map(|one| (one.protocol.as_str(), one.host_port, one.container_port)).collect();
        assert_eq!(seen, [("UDP", 5353, 53), ("TCP", 20, 2)]);
        assert_eq!(asked[0].host_ip, Some(Ipv4Addr::new(192, 0, 2, 11)));
        assert_ne!(table(asked.iter()), table([].iter()));
        let mut host = pod;
        host.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(mappings(&host, address), [], "its containers listen on the node themselves");
    }
}
