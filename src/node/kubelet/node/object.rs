//! The Node as this kubelet sees it: pure, from configuration and machine to labels and status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::super::config::Config;
use super::super::machine::Machine;

/// Kept free by upstream's default `evictionHard` (`memory.available: 100Mi`, `nodefs.available: 10%`).
const MEMORY_KEPT_FREE: u64 = 100 << 20;
const STORAGE_KEPT_FREE_PERCENT: u64 = 10;
pub const KUBELET_VERSION: &str = "v1.36.2";

/// Whether pods can run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// The controller manager has not given the node a range of pod addresses yet.
    NoPodCidr,
}

/// What the status is made of.
pub struct Facts<'a> {
    pub config: &'a Config,
    pub machine: &'a Machine,
    pub address: IpAddr,
    pub readiness: Readiness,
    pub images: Vec<ContainerImage>,
    pub now: Timestamp,
}

/// The object to create.
pub fn node(facts: &Facts<'_>) -> Node {
    let config = facts.config;
    let taints = config.taints.iter().map(|(key, value, effect)| Taint {
        key: key.clone(),
        value: (!value.is_empty()).then(|| value.clone()),
        effect: effect.clone(),
        time_added: None,
    });
    let taints: Vec<Taint> = taints.collect();
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config)),
            annotations: Some(BTreeMap::from([(
                "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
                "true".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec { taints: (!taints.is_empty()).then_some(taints), ..NodeSpec::default() }),
        status: Some(status(facts, None)),
    }
}

/// The labels a kubelet keeps on its node.
pub fn labels(config: &Config) -> BTreeMap<String, String> {
    let arch = crate::node::image::arch();
    let mut labels = config.node_labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.insert(key.into(), value.into());
    }
    labels
}

/// The status now; transition times are carried over from the one before.
pub fn status(facts: &Facts<'_>, before: Option<&NodeStatus>) -> NodeStatus {
    let capacity = capacity(facts);
    let mut allocatable = capacity.clone();
    allocatable
        .insert("memory".into(), kibibytes(facts.machine.memory_bytes.saturating_sub(MEMORY_KEPT_FREE)));
    let storage = facts.machine.storage_bytes / 100 * (100 - STORAGE_KEPT_FREE_PERCENT);
    allocatable.insert("ephemeral-storage".into(), Quantity(storage.to_string()));
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", facts.address.to_string()),
            address("Hostname", facts.config.node_name.clone()),
        ]),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(facts, before)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.config.listen.port()) }),
        }),
        node_info: Some(node_info(facts.machine)),
        images: Some(facts.images.clone()),
        declared_features: declared(facts.config),
        ..NodeStatus::default()
    }
}

fn capacity(facts: &Facts<'_>) -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".into(), Quantity(facts.machine.cpus.to_string())),
        ("memory".into(), kibibytes(facts.machine.memory_bytes)),
        ("ephemeral-storage".into(), kibibytes(facts.machine.storage_bytes)),
        ("hugepages-1Gi".into(), Quantity("0".into())),
        ("hugepages-2Mi".into(), Quantity("0".into())),
        ("pods".into(), Quantity(facts.config.max_pods.to_string())),
    ])
}

/// What this kubelet can do that the control plane must not take for granted (`nodedeclaredfeatures`).
fn declared(config: &Config) -> Option<Vec<String>> {
    let gates = ["ExtendWebSocketsToKubelet"].into_iter().filter(|gate| config.gates.on(gate));
    let declared: Vec<String> = gates.map(str::to_owned).collect();
    (config.gates.on("NodeDeclaredFeatures") && !declared.is_empty()).then_some(declared)
}

fn kibibytes(bytes: u64) -> Quantity {
    Quantity(format!("{}Ki", bytes / 1024))
}

fn node_info(machine: &Machine) -> NodeSystemInfo {
    NodeSystemInfo {
        machine_id: machine.machine_id.clone(),
        system_uuid: machine.system_uuid.clone(),
        boot_id: machine.boot_id.clone(),
        kernel_version: machine.kernel.clone(),
        os_image: machine.os_image.clone(),
        container_runtime_version: concat!("minilab://", env!("CARGO_PKG_VERSION")).into(),
        kubelet_version: KUBELET_VERSION.into(),
        // Upstream leaves this field empty since v1.33.
        kube_proxy_version: String::new(),
        operating_system: "linux".into(),
        architecture: crate::node::image::arch().into(),
        ..NodeSystemInfo::default()
    }
}

/// The images on this node. The first call reads the built-in one's files, which takes a moment.
pub fn images() -> Vec<ContainerImage> {
    let image = |(image, names): (crate::node::image::Image, Vec<String>)| {
        let digest = image.digest.is_some().then(|| image.digest_reference());
        ContainerImage {
            names: Some(digest.into_iter().chain(names).collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        }
    };
    crate::node::image::list().into_iter().map(image).collect()
}

fn conditions(facts: &Facts<'_>, before: Option<&NodeStatus>) -> Vec<NodeCondition> {
    let ready = match facts.readiness {
        Readiness::Ready => ("True", "KubeletReady", "kubelet is posting ready status"),
        Readiness::NoPodCidr => (
            "False",
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network \
             plugin returns error: node has no podCIDR yet",
        ),
    };
    let rows = [
        (
            "MemoryPressure",
            ("False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        ("DiskPressure", ("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure")),
        ("PIDPressure", ("False", "KubeletHasSufficientPID", "kubelet has sufficient PID available")),
        ("Ready", ready),
    ];
    let earlier = |kind: &str, status: &str| {
        let conditions = before.and_then(|before| before.conditions.as_ref())?;
        let same = conditions.iter().find(|old| old.type_ == kind && old.status == status)?;
        same.last_transition_time.clone()
    };
    rows.map(|(kind, (status, reason, message))| NodeCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: Some(Time(facts.now)),
        last_transition_time: Some(earlier(kind, status).unwrap_or(Time(facts.now))),
    })
    .to_vec()
}

/// Whether two statuses say the same, heartbeats aside.
pub fn same(one: &NodeStatus, other: &NodeStatus) -> bool {
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            (condition.last_heartbeat_time, condition.last_transition_time) = (None, None);
        }
        status
    };
    quiet(one) == quiet(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_node_turns_ready_once_and_keeps_the_time_it_did() {
        let flags =
            super::super::super::flags::Flags::try_parse_from(["kubelet", "--kubeconfig=/k"]).unwrap();
        let config = Config::read(flags, "node-1").unwrap();
        let machine =
            Machine { cpus: 2, memory_bytes: 4 << 30, storage_bytes: 1000 << 10, ..Machine::default() };
        let at = |seconds: i64, readiness| Facts {
            config: &config,
            machine: &machine,
            address: "192.0.2.11".parse().unwrap(),
            readiness,
            images: Vec::new(),
            now: Timestamp::from_second(seconds).unwrap(),
        };
        let first = status(&at(1, Readiness::NoPodCidr), None);
        let second = status(&at(2, Readiness::Ready), Some(&first));
        let third = status(&at(3, Readiness::Ready), Some(&second));
        assert!(!same(&first, &second) && same(&second, &third));
        let ready =
            third.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(ready.last_transition_time.unwrap().0.as_second(), 2);
        assert_eq!(ready.reason.as_deref(), Some("KubeletReady"));
        assert_eq!(third.declared_features.unwrap(), ["ExtendWebSocketsToKubelet"]);
        assert_eq!(third.allocatable.unwrap()["memory"].0, format!("{}Ki", (4 << 20) - (100 << 10)));
    }
}
