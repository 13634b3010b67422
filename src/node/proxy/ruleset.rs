//! What the table should hold: a pure function of Services and EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::config::Config;
use crate::sys::nft::{Protocol, ServiceKey};

/// Every service port and where it leads, plus how traffic is marked.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruleset {
    pub cluster_cidr: Option<Ipv4Net>,
    pub masquerade_all: bool,
    pub masquerade_mark: u32,
    pub ports: BTreeMap<ServiceKey, Backend>,
}

/// One service port's name and its ready endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// `NAMESPACE/NAME/PROTOCOL/PORT-NAME`, which chains are named after.
    pub name: String,
    pub endpoints: BTreeSet<(Ipv4Addr, u16)>,
}

/// The label that ties a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Ruleset {
    pub fn new<'a>(
        config: &Config,
        services: impl Iterator<Item = &'a Service>,
        slices: impl Iterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let mut of_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices.filter(|slice| slice.address_type == "IPv4") {
            let meta = &slice.metadata;
            let name = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
            if let (Some(namespace), Some(name)) = (&meta.namespace, name) {
                of_service.entry((namespace, name)).or_default().push(slice);
            }
        }
        let mut ports = BTreeMap::new();
        for service in services {
            let place = (
                service.metadata.namespace.as_deref().unwrap_or_default(),
                service.metadata.name.as_deref().unwrap_or_default(),
            );
            let slices = of_service.get(&place).map(Vec::as_slice).unwrap_or_default();
            ports.extend(service_ports(config, service, place, slices));
        }
        Self {
            cluster_cidr: config.cluster_cidr,
            masquerade_all: config.masquerade_all,
            masquerade_mark: config.masquerade_mark,
            ports,
        }
    }
}

fn service_ports(
    config: &Config,
    service: &Service,
    (namespace, name): (&str, &str),
    slices: &[&EndpointSlice],
) -> Vec<(ServiceKey, Backend)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    // Headless ("None"), ExternalName and unallocated services have no address to serve.
    let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let only_here = spec.internal_traffic_policy.as_deref() == Some("Local");
    let node = only_here.then_some(config.node.as_str());
    let ports = spec.ports.as_deref().unwrap_or_default();
    ports
        .iter()
        .filter_map(|port| {
            let (protocol, word) = protocol(port.protocol.as_deref())?;
            let key = ServiceKey { address, protocol, port: u16::try_from(port.port).ok()? };
            let port_name = port.name.as_deref().unwrap_or_default();
            let name = format!("{namespace}/{name}/{word}/{port_name}");
            Some((key, Backend { name, endpoints: endpoints(port, slices, node) }))
        })
        .collect()
}

/// Ready endpoints; when there are none, those that still serve while they terminate.
fn endpoints(port: &ServicePort, slices: &[&EndpointSlice], node: Option<&str>) -> BTreeSet<(Ipv4Addr, u16)> {
    let with = |usable: fn(&Endpoint) -> bool| -> BTreeSet<(Ipv4Addr, u16)> {
        let mut found = BTreeSet::new();
        for slice in slices {
            let matching = slice.ports.iter().flatten().find(|candidate| {
                candidate.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
            });
            let Some(number) = matching.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok())
            else {
                continue;
            };
            for endpoint in slice.endpoints.iter().flatten() {
                if usable(endpoint) && node.is_none_or(|node| endpoint.node_name.as_deref() == Some(node)) {
                    found.extend(endpoint.addresses.iter().filter_map(|ip| Some((ip.parse().ok()?, number))));
                }
            }
        }
        found
    };
    let ready = with(|endpoint| endpoint.conditions.as_ref().and_then(|is| is.ready).unwrap_or(true));
    if !ready.is_empty() {
        return ready;
    }
    with(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|is| is.serving).unwrap_or(false)
            && conditions.and_then(|is| is.terminating).unwrap_or(false)
    })
}

/// A protocol and its word in chain names; unknown ones are left alone.
fn protocol(name: Option<&str>) -> Option<(Protocol, &'static str)> {
    match name.unwrap_or("TCP") {
        "TCP" => Some((Protocol::Tcp, "tcp")),
        "UDP" => Some((Protocol::Udp, "udp")),
        "SCTP" => Some((Protocol::Sctp, "sctp")),
        _ => None,
    }
}
