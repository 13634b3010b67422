//! Sets and maps: their keys, and what nft calls their types.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Protocol;

const ADDRESS: u32 = 7;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
/// nft joins the types of a concatenation, six bits each.
const BITS: u32 = 6;

const MAP: u32 = 8;
const TIMEOUT: u32 = 0x10;
const UPDATED_BY_RULES: u32 = 0x20;
const CONCATENATED: u32 = 0x80;

/// Address, protocol and port of a service: `ipv4_addr . inet_proto . inet_service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

/// One element's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Address(Ipv4Addr),
    /// Source and destination.
    Pair(Ipv4Addr, Ipv4Addr),
    Port(Protocol, u16),
    Service(ServiceKey),
}

/// What a set's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Address,
    Pair,
    Port,
    Service,
}

/// What a set or map is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Membership.
    Set(KeyKind),
    /// From a key to a verdict.
    Verdicts(KeyKind),
    /// Addresses that rules add and that are forgotten after this time.
    Remembered(Duration),
}

impl Key {
    /// Each part padded to four bytes, as registers hold them.
    pub(super) fn bytes(self) -> Vec<u8> {
        let port = |protocol: Protocol, port: u16| {
            let [high, low] = port.to_be_bytes();
            [protocol as u8, 0, 0, 0, high, low, 0, 0]
        };
        match self {
            Self::Address(address) => address.octets().to_vec(),
            Self::Pair(from, to) => [from.octets(), to.octets()].concat(),
            Self::Port(protocol, number) => port(protocol, number).to_vec(),
            Self::Service(key) => {
                let mut bytes = key.address.octets().to_vec();
                bytes.extend(port(key.protocol, key.port));
                bytes
            }
        }
    }
}

impl KeyKind {
    fn parts(self) -> &'static [u32] {
        match self {
            Self::Address => &[ADDRESS],
            Self::Pair => &[ADDRESS, ADDRESS],
            Self::Port => &[PROTOCOL, PORT],
            Self::Service => &[ADDRESS, PROTOCOL, PORT],
        }
    }

    pub(super) fn type_number(self) -> u32 {
        self.parts().iter().fold(0, |number, part| (number << BITS) | part)
    }

    /// How many four-byte registers a key fills.
    pub(super) fn words(self) -> usize {
        self.parts().len()
    }
}

impl SetKind {
    pub(super) fn keys(self) -> KeyKind {
        match self {
            Self::Set(keys) | Self::Verdicts(keys) => keys,
            Self::Remembered(_) => KeyKind::Address,
        }
    }

    pub(super) fn flags(self) -> u32 {
        let kind = match self {
            Self::Set(_) => 0,
            Self::Verdicts(_) => MAP,
            Self::Remembered(_) => TIMEOUT | UPDATED_BY_RULES,
        };
        if self.keys().words() > 1 { kind | CONCATENATED } else { kind }
    }
}

/// `ipv4_addr . inet_service`, as the data of a map.
pub(super) const ENDPOINT_TYPE: u32 = (ADDRESS << BITS) | PORT;
