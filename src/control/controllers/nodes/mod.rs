//! Loops about nodes: their pod addresses, their routes, their health, and the pods of the unhealthy.

pub mod eviction;
pub mod ipam;
pub mod lifecycle;
pub mod routes;

use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};

/// A node's condition of one type.
pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|one| one.type_ == type_)
}

pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

pub fn internal_ip(node: &Node) -> Option<&str> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|one| one.type_ == "InternalIP").map(|one| one.address.as_str())
}
