//! Pods as policies see them: which a selector means, and at which addresses and ports they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;

use crate::api::selector::LabelSelector;
use crate::sys::nft::Protocol;

/// One pod with an address of its own.
#[derive(Debug)]
pub struct Member {
    pub namespace: String,
    pub name: String,
    pub address: Ipv4Addr,
    pub here: bool,
    labels: BTreeMap<String, String>,
    ports: Vec<(String, Protocol, u16)>,
}

/// The cluster's pods and the labels of its namespaces.
#[derive(Debug)]
pub struct View {
    pub pods: Vec<Member>,
    /// Where this node's pods have their addresses from.
    pub net: Option<Ipv4Net>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

impl View {
    pub fn new<'a>(
        node: &str,
        pods: impl Iterator<Item = &'a Pod>,
        namespaces: impl Iterator<Item = &'a Namespace>,
        own: Option<&Node>,
    ) -> Self {
        let mut pods: Vec<Member> = pods.filter_map(|pod| member(pod, node)).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let labels = namespaces.filter_map(|one| {
            Some((one.metadata.name.clone()?, one.metadata.labels.clone().unwrap_or_default()))
        });
        let net = own.and_then(|node| node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok());
        Self { pods, net, namespaces: labels.collect() }
    }

    /// The pods of a namespace a selector means; an empty selector means all, an unreadable one none.
    pub fn selected<'a>(
        &'a self,
        namespace: &'a str,
        selector: Option<&ApiSelector>,
    ) -> impl Iterator<Item = &'a Member> {
        let selector = readable(selector);
        self.pods.iter().filter(move |pod| {
            pod.namespace == namespace
                && selector.as_ref().is_some_and(|selector| fits(selector, &pod.labels))
        })
    }

    /// The pods a peer means, seen from a policy of `namespace`.
    pub fn peers<'a>(
        &'a self,
        namespace: &'a str,
        peer: &NetworkPolicyPeer,
    ) -> impl Iterator<Item = &'a Member> {
        let pods = readable(peer.pod_selector.as_ref());
        let spaces = peer.namespace_selector.as_ref().map(|selector| readable(Some(selector)));
        self.pods.iter().filter(move |pod| {
            let in_space = match &spaces {
                None => pod.namespace == namespace,
                Some(selector) => self
                    .namespaces
                    .get(&pod.namespace)
                    .is_some_and(|labels| selector.as_ref().is_some_and(|selector| fits(selector, labels))),
            };
            in_space && pods.as_ref().is_some_and(|selector| fits(selector, &pod.labels))
        })
    }
}

impl Member {
    /// The numbers its ports of this name have.
    pub fn ports_named(&self, name: &str, protocol: Protocol) -> BTreeSet<u16> {
        let own = self.ports.iter().filter(|(own, theirs, _)| own == name && *theirs == protocol);
        own.map(|(.., number)| *number).collect()
    }
}

fn readable(selector: Option<&ApiSelector>) -> Option<LabelSelector> {
    let value = selector.map(serde_json::to_value).transpose().ok()?;
    match value {
        Some(value) => LabelSelector::from_object(Some(&value)).ok(),
        // No selector at all is the empty one here.
        None => LabelSelector::from_object(Some(&serde_json::json!({}))).ok(),
    }
}

fn fits(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.matches_by(|name| labels.get(name).map(String::as_str))
}

/// A pod policies can mean: with an address of its own and not finished.
fn member(pod: &Pod, node: &str) -> Option<Member> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    if spec.host_network == Some(true) || matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.clone()?, protocol(port.protocol.as_deref())?, number))
    });
    Some(Member {
        namespace: pod.metadata.namespace.clone()?,
        name: pod.metadata.name.clone()?,
        address: status.pod_ip.as_deref()?.parse().ok()?,
        here: spec.node_name.as_deref() == Some(node),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        ports: ports.collect(),
    })
}

pub fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}
