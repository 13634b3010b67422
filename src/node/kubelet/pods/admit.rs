//! Admission on the node: a pod that does not fit here fails at once (`pkg/kubelet/lifecycle/predicate.go`).
//!
//! The scheduler has judged already; this catches pods that name their node themselves.

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::api::quantity::Quantity;

/// Why not: the status' reason and message.
pub type Rejection = (String, String);

/// Judges a new pod beside those that are here already.
pub fn admit(node: &Node, pod: &Pod, others: &[&Pod]) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        let message = format!("Failed to admit pod as the OS field doesn't match node OS: {}", os.name);
        return Err(("PodOSNotSupported".into(), message));
    }
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    if !selected {
        let message = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(("NodeAffinity".into(), message.into()));
    }
    if let Some(port) =
        host_ports(pod).find(|port| others.iter().any(|other| host_ports(other).any(|used| used == *port)))
    {
        let _ = port;
        let message = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(("NodePorts".into(), message.into()));
    }
    fits(node, pod, others)
}

/// Host ports with their protocol.
fn host_ports(pod: &Pod) -> impl Iterator<Item = (i32, String)> {
    let containers = pod.spec.iter().flat_map(|spec| spec.containers.iter());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number != 0)?;
        Some((number, port.protocol.clone().unwrap_or_else(|| "TCP".into())))
    })
}

fn fits(node: &Node, pod: &Pod, others: &[&Pod]) -> Result<(), Rejection> {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
    let room = |resource: &str| Quantity::parse(&allocatable.get(resource)?.0).ok();
    let reject = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        );
        Err((format!("OutOf{resource}"), message))
    };
    if let Some(pods) = room("pods") {
        let used = i64::try_from(others.len()).unwrap_or(i64::MAX);
        if used >= pods.value() {
            return reject("pods", 1, used, pods.value());
        }
    }
    for (resource, milli) in [("cpu", true), ("memory", false)] {
        let Some(capacity) = room(resource) else { continue };
        let amount = |quantity: &Quantity| if milli { quantity.milli() } else { quantity.value() };
        let (capacity, requested) = (amount(&capacity), request(pod, resource, amount));
        let used: i64 = others.iter().map(|other| request(other, resource, amount)).sum();
        if requested > 0 && requested > capacity - used {
            return reject(resource, requested, used, capacity);
        }
    }
    Ok(())
}

/// What a pod asks for: its main containers together, or its largest init container.
fn request(pod: &Pod, resource: &str, amount: impl Fn(&Quantity) -> i64) -> i64 {
    let Some(spec) = &pod.spec else { return 0 };
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let quantity = requests.and_then(|requests| requests.get(resource));
        quantity
            .and_then(|quantity| Quantity::parse(&quantity.0).ok())
            .map_or(0, |quantity| amount(&quantity))
    };
    let mains: i64 = spec.containers.iter().map(of).sum();
    mains.max(spec.init_containers.iter().flatten().map(of).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_that_asks_for_too_much_or_another_node_is_rejected_in_upstreams_words() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"labels": {"disk": "ssd"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2"}},
        }))
        .unwrap();
        let pod =
            |spec: serde_json::Value| -> Pod { serde_json::from_value(json!({ "spec": spec })).unwrap() };
        let asks =
            |cpu: &str| pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}));
        assert_eq!(admit(&node, &asks("1"), &[&asks("1")]), Ok(()));
        let (reason, message) = admit(&node, &asks("1500m"), &[&asks("1")]).unwrap_err();
        assert_eq!(reason, "OutOfcpu");
        assert!(message.ends_with("cpu, requested: 1500, used: 1000, capacity: 2000"));
        assert_eq!(admit(&node, &asks("0"), &[&asks("0"), &asks("0")]).unwrap_err().0, "OutOfpods");
        let elsewhere = pod(json!({"containers": [], "nodeSelector": {"disk": "hdd"}}));
        assert_eq!(admit(&node, &elsewhere, &[]).unwrap_err().0, "NodeAffinity");
    }
}
