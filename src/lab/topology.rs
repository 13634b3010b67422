//! The lab's cables: who is plugged into what, with which addresses and routes.
//!
//! `wire` has one cable to `control` and one to `switch`, the node site's bridge; every node has one to
//! `switch`. So only traffic between the sites crosses `wire`, and there is no way out.
//! What the cables are is computed from the plan; plugging them in is netlink.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::plan::{HostKind, HostPlan, Plan};
use crate::sys::namespace::Network;
use crate::sys::netlink::{Netlink, NetlinkError, Route, sysctl};

/// The bridge in `switch`.
const BRIDGE: &str = "br0";

/// A veth pair between two hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cable {
    pub near: End,
    pub far: End,
}

/// One end of a cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub host: String,
    pub interface: String,
    plug: Plug,
}

/// What an end is to its host.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plug {
    /// An interface of its own, and where everything else goes.
    Address { address: Ipv4Net, gateway: Option<Ipv4Addr> },
    /// A port of the bridge.
    Port,
}

/// What could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    #[error("cannot visit the network of {host}")]
    Enter { host: String, source: std::io::Error },
    #[error("cannot set up the network of {host}")]
    Prepare { host: String, source: NetlinkError },
    #[error("cannot plug {near} into {far}")]
    Plug { near: String, far: String, source: NetlinkError },
}

/// A host's network, as the supervisor holds it.
#[derive(Debug)]
pub struct Attachment {
    pub network: Network,
    pub netlink: Netlink,
}

/// Every cable of a lab, in the order they are plugged.
pub fn cables(plan: &Plan) -> Vec<Cable> {
    let of_kind = |kind| plan.hosts.iter().filter(move |host| host.kind == kind);
    let Some(wire) = of_kind(HostKind::Wire).next() else { return Vec::new() };
    let mut cables = Vec::new();
    for control in of_kind(HostKind::Control) {
        if let Some(near) = wire_end(wire, control, "to-control") {
            cables.extend(own_end(control).map(|far| Cable { near, far }));
        }
    }
    for switch in of_kind(HostKind::Switch) {
        let port = |name: &str| End { host: switch.name.clone(), interface: name.into(), plug: Plug::Port };
        let near = of_kind(HostKind::Node).find_map(|node| wire_end(wire, node, "to-nodes"));
        cables.extend(near.map(|near| Cable { near, far: port("wire") }));
        for node in of_kind(HostKind::Node) {
            cables.extend(own_end(node).map(|far| Cable { near: port(&node.name), far }));
        }
    }
    cables
}

/// Wire's end towards a host: it has the address of wire that shares the host's subnet.
fn wire_end(wire: &HostPlan, towards: &HostPlan, interface: &str) -> Option<End> {
    let there = addresses(towards).next()?;
    let address = addresses(wire).find(|own| own.contains(&there.addr()))?;
    let plug = Plug::Address { address, gateway: None };
    Some(End { host: wire.name.clone(), interface: interface.into(), plug })
}

fn own_end(host: &HostPlan) -> Option<End> {
    let address = addresses(host).next()?;
    let gateway = match host.gateway {
        Some(std::net::IpAddr::V4(gateway)) => Some(gateway),
        _ => None,
    };
    let plug = Plug::Address { address, gateway };
    Some(End { host: host.name.clone(), interface: "eth0".into(), plug })
}

fn addresses(host: &HostPlan) -> impl Iterator<Item = Ipv4Net> {
    host.addresses.iter().filter_map(|address| match address {
        IpNet::V4(address) => Some(*address),
        IpNet::V6(_) => None,
    })
}

/// Makes a fresh network namespace into its host's: forwarding, `lo`, the bridge; no cable yet.
pub fn prepare(host: &HostPlan, network: Network) -> Result<Attachment, TopologyError> {
    let failed = |source| TopologyError::Prepare { host: host.name.clone(), source };
    let mut netlink = network
        .enter(|| set_sysctls(host.kind).and_then(|()| Netlink::open()))
        .map_err(|source| TopologyError::Enter { host: host.name.clone(), source })?
        .map_err(failed)?;
    let lo = netlink.index("lo").map_err(failed)?;
    netlink.set_up(lo).map_err(failed)?;
    if host.kind == HostKind::Switch {
        netlink.add_bridge(BRIDGE).map_err(failed)?;
        let bridge = netlink.index(BRIDGE).map_err(failed)?;
        netlink.set_up(bridge).map_err(failed)?;
    }
    Ok(Attachment { network, netlink })
}

/// Set before there is any link but `lo`, since links start with the `default` values.
fn set_sysctls(kind: HostKind) -> Result<(), NetlinkError> {
    // Without it every link asks for routers and neighbours over IPv6: noise in every capture.
    if std::path::Path::new("/proc/sys/net/ipv6").exists() {
        sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    }
    // Inherited from the machine otherwise, where it may be strict.
    sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    sysctl("net/ipv4/conf/default/rp_filter", "0")?;
    // A peer that acknowledges nothing is given up after three seconds; one that says it has no room, never.
    sysctl("net/ipv4/tcp_retries2", "3")?;
    if matches!(kind, HostKind::Wire | HostKind::Node) {
        sysctl("net/ipv4/ip_forward", "1")?;
    }
    if kind == HostKind::Wire {
        // Control's way to the load-balancer address goes in and out of one interface.
        sysctl("net/ipv4/conf/all/send_redirects", "0")?;
        sysctl("net/ipv4/conf/default/send_redirects", "0")?;
    }
    Ok(())
}

/// Plugs a cable into both hosts and switches it on.
pub fn plug(cable: &Cable, near: &mut Attachment, far: &mut Attachment) -> Result<(), TopologyError> {
    (|| {
        let (here, there) = (&cable.near.interface, &cable.far.interface);
        near.netlink.add_veth(here, there, std::os::fd::AsFd::as_fd(&far.network))?;
        set_up(&cable.near, &mut near.netlink)?;
        set_up(&cable.far, &mut far.netlink)
    })()
    .map_err(|source| TopologyError::Plug {
        near: cable.near.host.clone(),
        far: cable.far.host.clone(),
        source,
    })
}

fn set_up(end: &End, netlink: &mut Netlink) -> Result<(), NetlinkError> {
    let link = netlink.index(&end.interface)?;
    match end.plug {
        Plug::Port => {
            let bridge = netlink.index(BRIDGE)?;
            netlink.set_master(link, bridge)?;
            netlink.set_up(link)
        }
        Plug::Address { address, gateway } => {
            netlink.add_address(link, address)?;
            netlink.set_up(link)?;
            gateway.map_or(Ok(()), |gateway| netlink.replace_route(Route::default_via(gateway)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::namespace::in_private_namespaces;

    fn host(name: &str, kind: HostKind, addresses: &[&str], gateway: Option<&str>) -> HostPlan {
        HostPlan {
            name: name.into(),
            kind,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            grown: Vec::new(),
            files: Vec::new(),
            roles: Vec::new(),
        }
    }

    fn two_nodes() -> Plan {
        let gateway = Some("192.0.2.1");
        let hosts = vec![
            host("wire", HostKind::Wire, &["198.51.100.1/24", "192.0.2.1/24"], None),
            host("control", HostKind::Control, &["198.51.100.2/24"], Some("198.51.100.1")),
            host("switch", HostKind::Switch, &[], None),
            host("node-1", HostKind::Node, &["192.0.2.11/24"], gateway),
            host("node-2", HostKind::Node, &["192.0.2.12/24"], gateway),
        ];
        Plan { hosts, forwards: Vec::new(), bars: Vec::new(), objects: Vec::new() }
    }

    #[test]
    fn only_wire_joins_the_sites() {
        let cables = cables(&two_nodes());
        let names: Vec<_> = cables
            .iter()
            .map(|Cable { near, far }| {
                format!("{}:{} {}:{}", near.host, near.interface, far.host, far.interface)
            })
            .collect();
        let expected = [
            "wire:to-control control:eth0",
            "wire:to-nodes switch:wire",
            "switch:node-1 node-1:eth0",
            "switch:node-2 node-2:eth0",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn control_and_nodes_reach_each_other_over_the_wire() {
        in_private_namespaces(|| {
            let plan = two_nodes();
            let mut hosts: std::collections::BTreeMap<_, _> = plan
                .hosts
                .iter()
                .map(|host| {
                    let attachment = prepare(host, Network::fresh().unwrap()).unwrap();
                    (host.name.clone(), attachment)
                })
                .collect();
            for cable in cables(&plan) {
                let mut near = hosts.remove(&cable.near.host).unwrap();
                plug(&cable, &mut near, hosts.get_mut(&cable.far.host).unwrap()).unwrap();
                hosts.insert(cable.near.host.clone(), near);
            }
            let listen = || std::net::TcpListener::bind("198.51.100.2:6443");
            let listener = hosts["control"].network.enter(listen).unwrap().unwrap();
            let dial = || std::net::TcpStream::connect("198.51.100.2:6443");
            let _stream = hosts["node-2"].network.enter(dial).unwrap().unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), "192.0.2.12", "no address is hidden on the way");
        });
    }
}
