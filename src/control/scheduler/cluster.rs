//! The scheduler's picture of the nodes: what each has and what runs or is about to run on it.
//!
//! A pod just bound counts at once (upstream's assumed pods), before the watch shows its binding.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use k8s_openapi::api::core::v1::{ContainerPort, Node, Pod};

use super::resources::{Amounts, allocatable, requested, weighed};

/// One node with its load.
#[derive(Clone)]
pub struct Candidate {
    pub node: Rc<Node>,
    pub allocatable: Amounts,
    pub load: Load,
}

/// What the pods of one node use.
#[derive(Debug, Clone, Default)]
pub struct Load {
    pub requested: Amounts,
    pub weighed: Amounts,
    pub pods: i64,
    /// Protocol, address and port taken on the host.
    pub ports: Vec<(String, String, i32)>,
    /// The pods themselves, for those who mind their neighbours.
    pub here: Vec<Rc<Pod>>,
    /// How many pods of each owner: spreading.
    pub owners: HashMap<String, i64>,
}

/// All loads by node name, and where each counted pod counts.
#[derive(Default)]
pub struct Cluster {
    nodes: BTreeMap<String, Rc<Node>>,
    loads: HashMap<String, Load>,
    /// By uid.
    counted: HashMap<String, (String, Rc<Pod>)>,
}

impl Cluster {
    pub fn set_node(&mut self, node: &Rc<Node>) {
        self.nodes.insert(node.metadata.name.clone().unwrap_or_default(), node.clone());
    }

    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Counts a pod on a node; one counted elsewhere or before moves.
    pub fn place(&mut self, pod: &Rc<Pod>, node: &str) {
        let uid = uid(pod);
        let same = |(known, was): &(String, Rc<Pod>)| {
            known == node
                && was.metadata.labels == pod.metadata.labels
                && was.metadata.deletion_timestamp == pod.metadata.deletion_timestamp
        };
        if self.counted.get(uid).is_some_and(same) {
            return;
        }
        self.forget(uid);
        self.loads.entry(node.to_owned()).or_default().add(pod);
        self.counted.insert(uid.to_owned(), (node.to_owned(), pod.clone()));
    }

    /// The pod is gone, finished, or was not bound after all.
    pub fn forget(&mut self, uid: &str) -> bool {
        let Some((node, pod)) = self.counted.remove(uid) else { return false };
        if let Some(load) = self.loads.get_mut(&node) {
            load.remove(&pod);
        }
        true
    }

    pub fn is_placed(&self, uid: &str) -> bool {
        self.counted.contains_key(uid)
    }

    pub fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(name, node): (&String, &Rc<Node>)| Candidate {
            node: node.clone(),
            allocatable: allocatable(node),
            load: self.loads.get(name).cloned().unwrap_or_default(),
        };
        self.nodes.iter().map(candidate).collect()
    }
}

impl Load {
    pub fn add(&mut self, pod: &Rc<Pod>) {
        self.here.push(pod.clone());
        self.requested.add(&requested(pod));
        self.weighed.add(&weighed(pod));
        self.pods += 1;
        self.ports.extend(host_ports(pod));
        if let Some(owner) = owner(pod) {
            *self.owners.entry(owner).or_default() += 1;
        }
    }

    pub fn remove(&mut self, pod: &Pod) {
        self.here.retain(|known| uid(known) != uid(pod));
        self.requested.subtract(&requested(pod));
        self.weighed.subtract(&weighed(pod));
        self.pods -= 1;
        for port in host_ports(pod) {
            if let Some(at) = self.ports.iter().position(|known| *known == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(count) = owner(pod).and_then(|owner| self.owners.get_mut(&owner)) {
            *count -= 1;
        }
    }
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Who made this pod: its siblings are spread.
pub fn owner(pod: &Pod) -> Option<String> {
    pod.metadata
        .owner_references
        .iter()
        .flatten()
        .find(|one| one.controller == Some(true))
        .map(|one| one.uid.clone())
}

/// The host ports a pod takes.
pub fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let on_host = spec.host_network == Some(true);
    let taken = |port: &ContainerPort| {
        let number = port.host_port.or(on_host.then_some(port.container_port)).filter(|port| *port > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
        Some((protocol, address, number))
    };
    spec.containers.iter().flat_map(|container| container.ports.iter().flatten()).filter_map(taken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_counts_once_and_leaves_no_trace() {
        let pod: Rc<Pod> = Rc::new(
            serde_json::from_value(json!({
                "metadata": {"uid": "u"},
                "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}},
                    "ports": [{"containerPort": 80, "hostPort": 80}]}]},
            }))
            .unwrap(),
        );
        let mut cluster = Cluster::default();
        cluster.place(&pod, "node-1");
        cluster.place(&pod, "node-1");
        assert_eq!(cluster.loads["node-1"].requested.get("cpu"), 1000);
        cluster.place(&pod, "node-2");
        assert_eq!((cluster.loads["node-1"].pods, cluster.loads["node-2"].pods), (0, 1));
        assert!(cluster.forget("u") && !cluster.forget("u"));
        assert_eq!(cluster.loads["node-2"].requested.get("cpu"), 0);
        assert!(cluster.loads["node-2"].ports.is_empty());
    }
}
