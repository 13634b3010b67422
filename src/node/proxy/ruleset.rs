//! What the node should do with each service port: a pure function of Services, EndpointSlices and the
//! node itself (`pkg/proxy/{serviceport,endpointslicecache,topology}.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::jiff::Timestamp;

use super::config::Config;
use crate::sys::nft::{Protocol, ServiceKey};

/// Every service port and where it leads, plus how traffic is marked.
#[derive(Debug, Clone, PartialEq)]
pub struct Ruleset {
    pub cluster_cidr: Option<Ipv4Net>,
    /// Where this node's own pods have their addresses from.
    pub own_pods: Option<Ipv4Net>,
    pub masquerade_all: bool,
    pub masquerade_mark: u32,
    /// The node's own addresses that answer for node ports.
    pub node_addresses: BTreeSet<Ipv4Addr>,
    /// By `NAMESPACE/NAME/PROTOCOL/PORT-NAME`, which chains are named after.
    pub ports: BTreeMap<String, Port>,
    /// By namespace and name: where load balancers ask whether this node has pods of a service.
    pub health: BTreeMap<(String, String), HealthPort>,
}

/// `healthCheckNodePort`, and what is said there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPort {
    pub port: u16,
    /// Ready endpoints on this node.
    pub local: usize,
}

/// One port of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    pub cluster: ServiceKey,
    /// When the service was made, then its uid: of two that claim one address the older one has it.
    pub since: (Option<Timestamp>, String),
    pub node_port: Option<u16>,
    /// `externalIPs` and the addresses a load balancer was given.
    pub external: BTreeSet<Ipv4Addr>,
    /// Those of them that a load balancer was given, and from where they may be used if not from everywhere.
    pub balancer: BTreeSet<Ipv4Addr>,
    pub sources: Vec<Ipv4Net>,
    /// How long a client stays with its endpoint.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local` and `externalTrafficPolicy: Local`.
    pub internal_local: bool,
    pub external_local: bool,
    pub endpoints: BTreeSet<(Ipv4Addr, u16)>,
    /// Those of them on this node.
    pub local: BTreeSet<(Ipv4Addr, u16)>,
}

impl Port {
    pub fn protocol(&self) -> Protocol {
        self.cluster.protocol
    }

    pub fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.external.is_empty()
    }

    /// Every address and port clients outside the pod network may know it by, without node ports.
    pub fn external_keys(&self) -> impl Iterator<Item = ServiceKey> {
        self.external.iter().map(|address| ServiceKey { address: *address, ..self.cluster })
    }
}

/// The label that ties a slice to its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What the rules are made from.
pub struct World<'a> {
    pub services: Vec<&'a Service>,
    pub slices: Vec<&'a EndpointSlice>,
    /// The node this proxy is on; not there yet while it registers.
    pub node: Option<&'a Node>,
}

/// Whose endpoints count as near.
struct Here<'a> {
    node: &'a str,
    zone: Option<&'a str>,
}

impl Ruleset {
    pub fn new(config: &Config, world: &World<'_>) -> Self {
        let mut of_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in world.slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let meta = &slice.metadata;
            let name = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
            if let (Some(namespace), Some(name)) = (&meta.namespace, name) {
                of_service.entry((namespace, name)).or_default().push(slice);
            }
        }
        let labels = world.node.and_then(|node| node.metadata.labels.as_ref());
        let here =
            Here { node: &config.node, zone: labels.and_then(|labels| labels.get(ZONE)).map(String::as_str) };
        let (mut ports, mut health) = (BTreeMap::new(), BTreeMap::new());
        for service in &world.services {
            let place = (
                service.metadata.namespace.as_deref().unwrap_or_default(),
                service.metadata.name.as_deref().unwrap_or_default(),
            );
            let slices = of_service.get(&place).map(Vec::as_slice).unwrap_or_default();
            ports.extend(service_ports(&here, service, place, slices));
            let asked = health_port(&here, service, slices);
            health.extend(asked.map(|port| ((place.0.to_owned(), place.1.to_owned()), port)));
        }
        Self {
            cluster_cidr: config.cluster_cidr,
            own_pods: world.node.and_then(|node| node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()),
            masquerade_all: config.masquerade_all,
            masquerade_mark: config.masquerade_mark,
            node_addresses: world.node.map(|node| addresses(node, config)).unwrap_or_default(),
            ports,
            health,
        }
    }
}

/// Where a load balancer asks for the service's endpoints on this node, and how many are ready.
fn health_port(here: &Here<'_>, service: &Service, slices: &[&EndpointSlice]) -> Option<HealthPort> {
    let spec = service.spec.as_ref()?;
    let port = u16::try_from(spec.health_check_node_port?).ok().filter(|port| *port != 0)?;
    if spec.external_traffic_policy.as_deref() != Some("Local") {
        return None;
    }
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = |one: &&Endpoint| one.conditions.as_ref().and_then(|is| is.ready).unwrap_or(true);
    let local = endpoints.filter(|one| one.node_name.as_deref() == Some(here.node)).filter(ready);
    let addresses: BTreeSet<&String> = local.flat_map(|one| &one.addresses).collect();
    Some(HealthPort { port, local: addresses.len() })
}

/// The node's addresses, or those of them in `--nodeport-addresses`.
fn addresses(node: &Node, config: &Config) -> BTreeSet<Ipv4Addr> {
    let reported = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let own = reported.filter(|address| matches!(address.type_.as_str(), "InternalIP" | "ExternalIP"));
    own.filter_map(|address| address.address.parse().ok())
        .filter(|address| {
            config.node_port_nets.is_empty() || config.node_port_nets.iter().any(|net| net.contains(address))
        })
        .collect()
}

fn service_ports(
    here: &Here<'_>,
    service: &Service,
    (namespace, name): (&str, &str),
    slices: &[&EndpointSlice],
) -> Vec<(String, Port)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    // Headless ("None"), ExternalName and unallocated services have no address to serve.
    let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let meta = &service.metadata;
    let since = (meta.creation_timestamp.as_ref().map(|at| at.0), meta.uid.clone().unwrap_or_default());
    let balancer = balancer_addresses(service);
    let named = spec.external_ips.iter().flatten().filter_map(|address| address.parse().ok());
    let external: BTreeSet<Ipv4Addr> = balancer.iter().copied().chain(named).collect();
    let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let one = |port: &ApiPort| {
        let (protocol, word) = protocol(port.protocol.as_deref())?;
        let port_name = port.name.as_deref().unwrap_or_default();
        let (endpoints, local_ones) = endpoints(port, slices, here);
        let port = Port {
            cluster: ServiceKey { address, protocol, port: u16::try_from(port.port).ok()? },
            since: since.clone(),
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
            external: external.clone(),
            balancer: balancer.clone(),
            sources: sources(spec),
            affinity: affinity(spec),
            internal_local: local(&spec.internal_traffic_policy),
            external_local: local(&spec.external_traffic_policy),
            endpoints,
            local: local_ones,
        };
        Some((format!("{namespace}/{name}/{word}/{port_name}"), port))
    };
    spec.ports.iter().flatten().filter_map(one).collect()
}

fn balancer_addresses(service: &Service) -> BTreeSet<Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    // A balancer in mode Proxy delivers to the node port itself.
    let given =
        ingress.filter(|one| one.ip_mode.as_deref() != Some("Proxy")).filter_map(|one| one.ip.as_ref());
    given.filter_map(|address| address.parse().ok()).collect()
}

/// `loadBalancerSourceRanges` of this family.
fn sources(spec: &ServiceSpec) -> Vec<Ipv4Net> {
    let listed = spec.load_balancer_source_ranges.iter().flatten();
    listed.filter_map(|range| range.trim().parse().ok()).collect()
}

fn affinity(spec: &ServiceSpec) -> Option<Duration> {
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(10_800);
    let asked = spec.session_affinity.as_deref() == Some("ClientIP");
    asked.then(|| Duration::from_secs(u64::try_from(seconds).unwrap_or(10_800)))
}

type Targets = BTreeSet<(Ipv4Addr, u16)>;

/// Ready endpoints, and when there are none those that still serve while they terminate: all of them
/// (or the near ones, when the hints allow it), and those on this node.
fn endpoints(port: &ApiPort, slices: &[&EndpointSlice], here: &Here<'_>) -> (Targets, Targets) {
    let mut all: Vec<(&Endpoint, u16)> = Vec::new();
    for slice in slices {
        let matching = slice.ports.iter().flatten().find(|candidate| {
            // Both belong to a port's name here, as in upstream's ServicePortName.
            candidate.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                && protocol(candidate.protocol.as_deref()) == protocol(port.protocol.as_deref())
        });
        if let Some(number) = matching.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) {
            all.extend(slice.endpoints.iter().flatten().map(|endpoint| (endpoint, number)));
        }
    }
    let on_this_node = |endpoint: &Endpoint| endpoint.node_name.as_deref() == Some(here.node);
    let local: Vec<_> = all.iter().filter(|(endpoint, _)| on_this_node(endpoint)).copied().collect();
    let mut wide: Vec<_> = usable(&all);
    if let Some(near) = near(&wide, here) {
        wide = near;
    }
    (targets(&wide), targets(&usable(&local)))
}

fn usable<'a>(some: &[(&'a Endpoint, u16)]) -> Vec<(&'a Endpoint, u16)> {
    let pick = |wanted: fn(&Endpoint) -> bool| -> Vec<_> {
        some.iter().filter(|(endpoint, _)| wanted(endpoint)).copied().collect()
    };
    let ready = pick(|endpoint| endpoint.conditions.as_ref().and_then(|is| is.ready).unwrap_or(true));
    if !ready.is_empty() {
        return ready;
    }
    pick(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|is| is.serving).unwrap_or(false)
            && conditions.and_then(|is| is.terminating).unwrap_or(false)
    })
}

/// Those hinted for this node or its zone, when every endpoint has such hints and some are for here.
fn near<'a>(some: &[(&'a Endpoint, u16)], here: &Here<'_>) -> Option<Vec<(&'a Endpoint, u16)>> {
    let for_here = |endpoint: &Endpoint, by_node: bool| -> Option<bool> {
        let hints = endpoint.hints.as_ref()?;
        if by_node {
            let nodes = hints.for_nodes.as_ref().filter(|nodes| !nodes.is_empty())?;
            return Some(nodes.iter().any(|node| node.name == here.node));
        }
        let zones = hints.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
        Some(zones.iter().any(|zone| Some(zone.name.as_str()) == here.zone))
    };
    [true, false].into_iter().find_map(|by_node| {
        let told: Option<Vec<bool>> = some.iter().map(|(endpoint, _)| for_here(endpoint, by_node)).collect();
        let chosen = some.iter().zip(told?).filter(|(_, here)| *here).map(|(one, _)| *one);
        Some(chosen.collect::<Vec<_>>()).filter(|chosen| !chosen.is_empty())
    })
}

fn targets(some: &[(&Endpoint, u16)]) -> Targets {
    let each = some.iter().flat_map(|(endpoint, port)| endpoint.addresses.iter().map(move |ip| (ip, *port)));
    each.filter_map(|(ip, port)| Some((ip.parse().ok()?, port))).collect()
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
