//! The kernel's table of connections: reading it, and forgetting single entries.
//!
//! A UDP conversation never ends by itself: while packets come, its entry keeps sending them where a rule
//! once said, also after the rule is gone. Whoever takes an endpoint away must forget its entries.
//! `conntrack -L` and `conntrack -D` by netlink, for IPv4.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::nft::wire::Attributes;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const IPV4: u8 = 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub protocol: u8,
}

/// One entry: how its first packet looked and how answers look before they are translated back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
}

/// Every IPv4 flow in the calling thread's network namespace.
pub fn flows() -> io::Result<Vec<Flow>> {
    let socket = open()?;
    send_request(&socket, GET, REQUEST | DUMP, &Attributes::default())?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, after)) = next_message(rest) {
            rest = after;
            match kind {
                DONE => return Ok(found),
                ERROR => return refusal(body).map(|()| found),
                _ => found.extend(body.get(4..).and_then(flow)),
            }
        }
        if length == 0 {
            return Ok(found);
        }
    }
}

/// Forgets one entry; that it is gone already is fine.
pub fn forget(flow: &Flow) -> io::Result<()> {
    let socket = open()?;
    let mut attributes = Attributes::default();
    attributes.nested(ORIGINAL, |tuple| {
        tuple.nested(1, |ip| {
            ip.bytes(1, &flow.original.source.0.octets());
            ip.bytes(2, &flow.original.destination.0.octets());
        });
        tuple.nested(2, |transport| {
            transport.bytes(1, &[flow.original.protocol]);
            transport.bytes(2, &flow.original.source.1.to_be_bytes());
            transport.bytes(3, &flow.original.destination.1.to_be_bytes());
        });
    });
    send_request(&socket, DELETE, REQUEST | ACKNOWLEDGE, &attributes)?;
    let mut buffer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    match next_message(&buffer[..length]) {
        Some((ERROR, body, _)) => match refusal(body) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            outcome => outcome,
        },
        _ => Ok(()),
    }
}

fn open() -> io::Result<OwnedFd> {
    let kind = (AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC);
    Ok(socket(kind.0, kind.1, kind.2, SockProtocol::NetlinkNetFilter)?)
}

fn send_request(socket: &OwnedFd, kind: u16, flags: u16, attributes: &Attributes) -> io::Result<()> {
    let body = attributes.as_bytes();
    let mut out = Vec::with_capacity(20 + body.len());
    out.extend(((20 + body.len()) as u32).to_ne_bytes());
    out.extend(((SUBSYSTEM << 8) | kind).to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([IPV4, 0, 0, 0]);
    out.extend_from_slice(body);
    send(socket.as_raw_fd(), &out, MsgFlags::empty())?;
    Ok(())
}

fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn refusal(body: &[u8]) -> io::Result<()> {
    match body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// The attribute of this kind, without the flags the kernel sets in kinds.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let payload = bytes.get(4..length)?;
        if kind == wanted {
            return Some(payload);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn flow(attributes: &[u8]) -> Option<Flow> {
    Some(Flow {
        original: tuple(attribute(attributes, ORIGINAL)?)?,
        reply: tuple(attribute(attributes, REPLY)?)?,
    })
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, transport) = (attribute(bytes, 1)?, attribute(bytes, 2)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(attribute(ip, kind)?).ok()?));
    // ICMP has no ports.
    let port =
        |kind| attribute(transport, kind).and_then(|port| port.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Tuple {
        source: (address(1)?, port(2)),
        destination: (address(2)?, port(3)),
        protocol: *attribute(transport, 1)?.first()?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::sys::namespace::in_private_namespaces;
    use crate::sys::netlink::Netlink;
    use crate::sys::nft::{ChainKind, Family, Hook, Protocol, Rule, Table, priority};

    #[test]
    fn a_forgotten_conversation_goes_where_the_rules_say_now() {
        in_private_namespaces(|| {
            let mut netlink = Netlink::open().unwrap();
            let lo = netlink.index("lo").unwrap();
            netlink.set_up(lo).unwrap();
            let backends = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            let to = |backend: &UdpSocket| {
                let port = backend.local_addr().unwrap().port();
                let mut table = Table::default();
                table.base_chain("out", ChainKind::Nat, Hook::Output, priority::DSTNAT);
                let matched = Rule::new().destination("127.0.0.2/32".parse().unwrap());
                table.rule("out", matched.protocol(Protocol::Udp).dnat(Ipv4Addr::LOCALHOST, port));
                table.replace(Family::Ip, "t").commit().unwrap();
            };
            for backend in &backends {
                backend.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            }
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            let received = |backend: &UdpSocket| {
                client.send_to(b"x", "127.0.0.2:53").unwrap();
                backend.recv(&mut [0; 8]).is_ok()
            };
            to(&backends[0]);
            assert!(received(&backends[0]));
            to(&backends[1]);
            assert!(!received(&backends[1]), "the entry still leads to the first");
            let stale: Vec<Flow> = flows()
                .unwrap()
                .into_iter()
                .filter(|flow| flow.original.destination == ([127, 0, 0, 2].into(), 53))
                .collect();
            assert_eq!(stale.len(), 1);
            assert_eq!(stale[0].reply.source.0, Ipv4Addr::LOCALHOST);
            forget(&stale[0]).unwrap();
            forget(&stale[0]).unwrap();
            assert!(received(&backends[1]));
        });
    }
}
