//! Links, addresses and routes by rtnetlink: what `ip link`, `ip address` and `ip route` do, synchronously.
//!
//! IPv4 only, and only what a lab is made of: veth, bridge, addresses, unicast routes in the main table.
//! A [`Netlink`] acts on the network namespace it was opened in, wherever its thread goes later.
//!
//! Two facts paid for before: the veth peer is born in its own namespace (moving it there afterwards costs
//! an RCU grace period, about 20 ms a pair), and it must not be asked to be up at birth (ENOTCONN).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::Ipv4Net;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

const HEADER: usize = 16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const CREATE: u16 = REQUEST | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = REQUEST | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
const VETH_INFO_PEER: u16 = 1;
const ANY_LINK: u32 = 0;
const RTNH_F_ONLINK: u32 = 4;

/// What the kernel would not do.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("open a netlink socket")]
    Open(#[source] io::Error),
    #[error("{action}")]
    Refused { action: String, source: io::Error },
    #[error("write {path}")]
    Sysctl { path: String, source: io::Error },
}

/// A unicast route. With both `via` and `link` the gateway need not be on a known subnet (`onlink`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub destination: Ipv4Net,
    pub via: Option<Ipv4Addr>,
    pub link: Option<u32>,
}

impl Route {
    /// Everything not routed otherwise, through a gateway.
    pub fn default_via(gateway: Ipv4Addr) -> Route {
        Route { destination: Ipv4Net::default(), via: Some(gateway), link: None }
    }

    /// A network behind a gateway.
    pub fn via(destination: Ipv4Net, gateway: Ipv4Addr) -> Route {
        Route { destination, via: Some(gateway), link: None }
    }

    /// A network right behind an interface.
    pub fn on(destination: Ipv4Net, link: u32) -> Route {
        Route { destination, via: None, link: Some(link) }
    }
}

/// A socket to one network namespace's routing.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens the calling thread's network namespace.
    pub fn open() -> Result<Netlink, NetlinkError> {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .map(|socket| Netlink { socket, sequence: 0 })
            .map_err(|error| NetlinkError::Open(error.into()))
    }

    /// Makes a veth pair whose `peer` is born in `peer_namespace`. Both ends are down.
    pub fn add_veth(
        &mut self,
        name: &str,
        peer: &str,
        peer_namespace: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let (near, far_end) = distinct_indices();
        let mut message = Message::link(libc::RTM_NEWLINK, CREATE, near);
        message.text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |far| {
                    far.raw(&link_header(far_end, 0, 0));
                    far.text(libc::IFLA_IFNAME, peer);
                    far.number(libc::IFLA_NET_NS_FD, peer_namespace.as_raw_fd() as u32);
                });
            });
        });
        self.request(message, || format!("add veth {name} with peer {peer}"))
    }

    /// Makes a bridge, down.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = Message::link(libc::RTM_NEWLINK, CREATE, ANY_LINK);
        message.text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        self.request(message, || format!("add bridge {name}"))
    }

    /// Plugs a link into a bridge.
    pub fn set_master(&mut self, link: u32, bridge: u32) -> Result<(), NetlinkError> {
        let mut message = Message::link(libc::RTM_NEWLINK, REQUEST, link);
        message.number(libc::IFLA_MASTER, bridge);
        self.request(message, || format!("plug link {link} into bridge {bridge}"))
    }

    /// Switches a link on.
    pub fn set_up(&mut self, link: u32) -> Result<(), NetlinkError> {
        let message = Message::new(
            libc::RTM_NEWLINK,
            REQUEST,
            &link_header(link, libc::IFF_UP as u32, libc::IFF_UP as u32),
        );
        self.request(message, || format!("set link {link} up"))
    }

    /// Removes a link; of a veth pair, both ends. One that is already gone is fine.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut message = Message::link(libc::RTM_DELLINK, REQUEST, ANY_LINK);
        message.text(libc::IFLA_IFNAME, name);
        gone_is_fine(self.request(message, || format!("delete link {name}")))
    }

    /// The number of the interface called `name`.
    pub fn index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        let mut message = Message::link(libc::RTM_GETLINK, REQUEST, ANY_LINK);
        message.text(libc::IFLA_IFNAME, name);
        let mut found = None;
        self.exchange(message, &mut |kind, body| {
            if kind == libc::RTM_NEWLINK {
                // `struct ifinfomsg`: the number is its second word.
                found = word(body, 4);
            }
        })
        .and_then(|()| found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV)))
        .map_err(|source| NetlinkError::Refused { action: format!("find link {name}"), source })
    }

    /// Gives a link an address with its subnet. One it already has is fine.
    pub fn add_address(&mut self, link: u32, address: Ipv4Net) -> Result<(), NetlinkError> {
        self.add_scoped_address(link, address, libc::RT_SCOPE_UNIVERSE)
    }

    /// Gives a link an address that it answers for and that is never chosen as a packet's source.
    pub fn add_silent_address(&mut self, link: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        self.add_scoped_address(link, address.into(), libc::RT_SCOPE_HOST)
    }

    fn add_scoped_address(&mut self, link: u32, address: Ipv4Net, scope: u8) -> Result<(), NetlinkError> {
        let mut header = vec![libc::AF_INET as u8, address.prefix_len(), 0, scope];
        header.extend(link.to_ne_bytes());
        let mut message = Message::new(libc::RTM_NEWADDR, REPLACE, &header);
        message.attribute(libc::IFA_LOCAL, &address.addr().octets());
        message.attribute(libc::IFA_ADDRESS, &address.addr().octets());
        self.request(message, || format!("add address {address} to link {link}"))
    }

    /// Sets a route, instead of the one to the same destination if there is one.
    pub fn replace_route(&mut self, route: Route) -> Result<(), NetlinkError> {
        self.request(route_message(libc::RTM_NEWROUTE, REPLACE, route), || {
            format!("set the route to {}", route.destination)
        })
    }

    /// Removes a route; one that is already gone is fine.
    pub fn delete_route(&mut self, route: Route) -> Result<(), NetlinkError> {
        gone_is_fine(self.request(route_message(libc::RTM_DELROUTE, REQUEST, route), || {
            format!("delete the route to {}", route.destination)
        }))
    }

    fn request(&mut self, message: Message, action: impl FnOnce() -> String) -> Result<(), NetlinkError> {
        self.exchange(message, &mut |_, _| {})
            .map_err(|source| NetlinkError::Refused { action: action(), source })
    }

    /// Sends one request and reads until its acknowledgement.
    fn exchange(&mut self, mut message: Message, each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        self.sequence += 1;
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), message.finish(self.sequence), &kernel, MsgFlags::empty())?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((kind, sequence, body, next)) = split_message(rest) {
                rest = next;
                match i32::from(kind) {
                    _ if sequence != self.sequence => {}
                    libc::NLMSG_ERROR => return acknowledged(body),
                    _ => each(kind, body),
                }
            }
        }
    }
}

/// Writes a sysctl of the calling thread's namespaces: `sysctl("net/ipv4/ip_forward", "1")`.
pub fn sysctl(name: &str, value: &str) -> Result<(), NetlinkError> {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value).map_err(|source| NetlinkError::Sysctl { path, source })
}

fn gone_is_fine(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(NetlinkError::Refused { source, .. })
            if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ESRCH | libc::ENOENT)) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn route_message(kind: u16, flags: u16, route: Route) -> Message {
    let scope = match (kind, route.via) {
        (libc::RTM_DELROUTE, _) => libc::RT_SCOPE_NOWHERE,
        (_, Some(_)) => libc::RT_SCOPE_UNIVERSE,
        (_, None) => libc::RT_SCOPE_LINK,
    };
    let onlink = if route.via.is_some() && route.link.is_some() { RTNH_F_ONLINK } else { 0 };
    let prefix = route.destination.prefix_len();
    let mut header = vec![libc::AF_INET as u8, prefix, 0, 0, libc::RT_TABLE_MAIN];
    header.extend([libc::RTPROT_BOOT, scope, libc::RTN_UNICAST]);
    header.extend(onlink.to_ne_bytes());
    let mut message = Message::new(kind, flags, &header);
    message.attribute(libc::RTA_DST, &route.destination.network().octets());
    if let Some(gateway) = route.via {
        message.attribute(libc::RTA_GATEWAY, &gateway.octets());
    }
    if let Some(link) = route.link {
        message.number(libc::RTA_OIF, link);
    }
    message
}

/// `struct ifinfomsg`.
/// Numbers for both ends of a veth pair that no other pair of this process or its neighbours has.
///
/// Left to itself the kernel numbers the ends separately in each namespace, so both may be number 2. It
/// then takes the pair for one device (`linkwatch_urgent_event`) and may report the carrier up to a second
/// late; a bridge port drops everything until then.
fn distinct_indices() -> (u32, u32) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = match std::process::id() {
        // The lab's and the floor's own cables.
        1 => 10,
        // A shim's pair, in a node where other shims make theirs.
        pid => 1000 + pid * 4,
    };
    let near = first + NEXT.fetch_add(2, Ordering::Relaxed);
    (near, near + 1)
}

fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut header = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    header.extend(index.to_ne_bytes());
    header.extend(flags.to_ne_bytes());
    header.extend(change.to_ne_bytes());
    header
}

/// The error number in an NLMSG_ERROR; zero is success.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match word(body, 0).map(|number| number as i32) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// The first message of a buffer: type, sequence, body, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(aligned(length)..).unwrap_or_default();
    Some((half(bytes, 4)?, word(bytes, 8)?, body, next))
}

/// A request under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | libc::NLM_F_ACK as u16).to_ne_bytes());
        bytes.extend(header);
        Message(bytes)
    }

    fn link(kind: u16, flags: u16, index: u32) -> Message {
        Message::new(kind, flags, &link_header(index, 0, 0))
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.resize(aligned(self.0.len()), 0);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.raw(value);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) {
        let start = self.0.len();
        self.attribute(kind, &[]);
        fill(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    use crate::sys::namespace::Network;

    /// Runs in two fresh network namespaces; skipping is not an option where the lab is to run.
    fn two_networks() -> (Network, Network) {
        let fresh = || Network::fresh().expect("a network namespace can be made here");
        (fresh(), fresh())
    }

    #[test]
    fn a_veth_joins_two_namespaces_and_routes_are_replaced_and_deleted() {
        crate::sys::namespace::in_private_namespaces(|| {
            let (left, right) = two_networks();
            let mut near = left.enter(Netlink::open).unwrap().unwrap();
            let mut far = right.enter(Netlink::open).unwrap().unwrap();
            near.add_veth("near", "far", right.as_fd()).unwrap();
            for (netlink, name, address) in
                [(&mut near, "near", "192.0.2.1/24"), (&mut far, "far", "192.0.2.2/24")]
            {
                let link = netlink.index(name).unwrap();
                netlink.add_address(link, address.parse().unwrap()).unwrap();
                netlink.set_up(link).unwrap();
            }
            let net = "10.1.0.0/16".parse().unwrap();
            near.replace_route(Route::via(net, "192.0.2.2".parse().unwrap())).unwrap();
            near.replace_route(Route::via(net, "192.0.2.3".parse().unwrap())).unwrap();
            near.replace_route(Route::default_via("192.0.2.2".parse().unwrap())).unwrap();
            let gone = Route::via(net, "192.0.2.3".parse().unwrap());
            near.delete_route(gone).unwrap();
            near.delete_route(gone).unwrap();
            assert!(near.index("near").is_ok() && near.index("lo").is_ok());
            near.delete_link("near").unwrap();
            near.delete_link("near").unwrap();
            assert!(far.index("far").is_err(), "the far end goes with the near one");
        });
    }

    #[test]
    fn a_bridge_takes_ports() {
        crate::sys::namespace::in_private_namespaces(|| {
            let (left, right) = two_networks();
            let mut netlink = left.enter(Netlink::open).unwrap().unwrap();
            netlink.add_bridge("br0").unwrap();
            netlink.add_veth("port", "eth0", right.as_fd()).unwrap();
            let (bridge, port) = (netlink.index("br0").unwrap(), netlink.index("port").unwrap());
            netlink.set_master(port, bridge).unwrap();
            netlink.set_up(bridge).unwrap();
        });
    }
}
