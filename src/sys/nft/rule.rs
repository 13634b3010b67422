//! Rules: a chain of expressions over registers, named as nft's language names them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::wire::Attributes;

/// Transport protocols rules match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

/// Where a packet goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(super) fn write(&self, data: &mut Attributes) {
        let (code, chain) = match self {
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5i32, None),
        };
        data.nested(2, |verdict| {
            verdict.number(1, code as u32);
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    }
}

const REGISTER_VERDICT: u32 = 0;
/// Sixteen-byte registers; several values side by side use the four-byte ones they are made of.
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;
const WORD_0: u32 = 8;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;
const META_MARK: u32 = 3;
const META_PROTOCOL: u32 = 16;
const CT_NEW: u32 = 8;
const FULLY_RANDOM: u32 = 1 << 4;

/// One rule, written left to right: matches first, then what to do.
#[derive(Default)]
pub struct Rule {
    expressions: Attributes,
}

impl Rule {
    pub fn new() -> Self {
        Self::default()
    }

    /// `ip saddr NET`.
    pub fn source(self, net: Ipv4Net) -> Self {
        self.address(SOURCE, net, EQUAL)
    }

    /// `ip saddr != NET`.
    pub fn source_outside(self, net: Ipv4Net) -> Self {
        self.address(SOURCE, net, NOT_EQUAL)
    }

    /// `ip daddr NET`.
    pub fn destination(self, net: Ipv4Net) -> Self {
        self.address(DESTINATION, net, EQUAL)
    }

    /// `meta l4proto P`.
    pub fn protocol(self, protocol: Protocol) -> Self {
        self.meta(META_PROTOCOL, REGISTER_1).compare(REGISTER_1, EQUAL, &[protocol as u8])
    }

    /// `P dport PORT`.
    pub fn destination_port(self, protocol: Protocol, port: u16) -> Self {
        self.protocol(protocol).payload(TRANSPORT_HEADER, DESTINATION_PORT, 2, REGISTER_1).compare(
            REGISTER_1,
            EQUAL,
            &port.to_be_bytes(),
        )
    }

    /// `ct state new`.
    pub fn new_connection(self) -> Self {
        self.expression("ct", |ct| {
            ct.number(1, REGISTER_1);
            ct.number(2, 0);
        })
        .bits(CT_NEW, 0)
        .compare(REGISTER_1, NOT_EQUAL, &[0; 4])
    }

    /// `meta mark and MASK == 0`.
    pub fn mark_clear(self, mask: u32) -> Self {
        self.meta(META_MARK, REGISTER_1).bits(mask, 0).compare(REGISTER_1, EQUAL, &[0; 4])
    }

    /// `meta mark set mark or BITS`.
    pub fn mark_or(self, bits: u32) -> Self {
        self.meta(META_MARK, REGISTER_1).bits(!bits, bits).set_mark()
    }

    /// `meta mark set mark xor BITS`.
    pub fn mark_xor(self, bits: u32) -> Self {
        self.meta(META_MARK, REGISTER_1).bits(u32::MAX, bits).set_mark()
    }

    /// `ip daddr . meta l4proto . th dport vmap @MAP`.
    pub fn verdict_by_service(self, map: &str) -> Self {
        self.payload(NETWORK_HEADER, DESTINATION, 4, WORD_0)
            .meta(META_PROTOCOL, WORD_0 + 1)
            .payload(TRANSPORT_HEADER, DESTINATION_PORT, 2, WORD_0 + 2)
            .lookup(map, WORD_0, None)
    }

    pub(super) fn random_below(self, modulus: u32) -> Self {
        self.expression("numgen", |numgen| {
            numgen.number(1, REGISTER_1);
            numgen.number(2, modulus);
            numgen.number(3, 1);
        })
    }

    pub(super) fn verdict_by_set_id(self, map: &str, id: u32) -> Self {
        self.lookup(map, REGISTER_1, Some(id))
    }

    /// Ends with a verdict.
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |immediate| {
            immediate.number(1, REGISTER_VERDICT);
            immediate.nested(2, |data| verdict.write(data));
        })
    }

    pub fn jump(self, chain: &str) -> Self {
        self.verdict(&Verdict::Jump(chain.to_owned()))
    }

    /// `dnat to ADDRESS:PORT`.
    pub fn dnat(self, address: Ipv4Addr, port: u16) -> Self {
        self.load(REGISTER_1, &address.octets()).load(REGISTER_2, &port.to_be_bytes()).expression(
            "nat",
            |nat| {
                nat.number(1, 1);
                nat.number(2, 2);
                nat.number(3, REGISTER_1);
                nat.number(5, REGISTER_2);
            },
        )
    }

    /// `snat to ADDRESS`.
    pub fn snat(self, address: Ipv4Addr) -> Self {
        self.load(REGISTER_1, &address.octets()).expression("nat", |nat| {
            nat.number(1, 0);
            nat.number(2, 2);
            nat.number(3, REGISTER_1);
        })
    }

    /// `masquerade fully-random`.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |masquerade| masquerade.number(1, FULLY_RANDOM))
    }

    /// `reject`: the sender reads "connection refused".
    pub fn reject(self) -> Self {
        self.expression("reject", |reject| {
            reject.number(1, 0);
            reject.bytes(2, &[3]);
        })
    }

    pub(super) fn write(&self, attributes: &mut Attributes) {
        attributes.nested(4, |list| list.append(&self.expressions));
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nested(1, |expression| {
            expression.text(1, name);
            expression.nested(2, fill);
        });
        self
    }

    fn address(self, offset: u32, net: Ipv4Net, operator: u32) -> Self {
        let matched = self.payload(NETWORK_HEADER, offset, 4, REGISTER_1);
        let matched = match net.prefix_len() {
            32 => matched,
            _ => matched.mask_bytes(&net.netmask().octets()),
        };
        matched.compare(REGISTER_1, operator, &net.network().octets())
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |meta| {
            meta.number(1, register);
            meta.number(2, key);
        })
    }

    fn set_mark(self) -> Self {
        self.expression("meta", |meta| {
            meta.number(2, META_MARK);
            meta.number(3, REGISTER_1);
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.expression("payload", |payload| {
            payload.number(1, register);
            payload.number(2, base);
            payload.number(3, offset);
            payload.number(4, length);
        })
    }

    fn compare(self, register: u32, operator: u32, data: &[u8]) -> Self {
        self.expression("cmp", |cmp| {
            cmp.number(1, register);
            cmp.number(2, operator);
            cmp.nested(3, |value| value.bytes(1, data));
        })
    }

    /// `(register & mask) ^ xor` on a number in the machine's byte order.
    fn bits(self, mask: u32, xor: u32) -> Self {
        self.bitwise(&mask.to_ne_bytes(), &xor.to_ne_bytes())
    }

    fn mask_bytes(self, mask: &[u8; 4]) -> Self {
        self.bitwise(mask, &[0; 4])
    }

    fn bitwise(self, mask: &[u8; 4], xor: &[u8; 4]) -> Self {
        self.expression("bitwise", |bitwise| {
            bitwise.number(1, REGISTER_1);
            bitwise.number(2, REGISTER_1);
            bitwise.number(3, 4);
            bitwise.nested(4, |value| value.bytes(1, mask));
            bitwise.nested(5, |value| value.bytes(1, xor));
        })
    }

    fn load(self, register: u32, data: &[u8]) -> Self {
        self.expression("immediate", |immediate| {
            immediate.number(1, register);
            immediate.nested(2, |value| value.bytes(1, data));
        })
    }

    fn lookup(self, map: &str, register: u32, id: Option<u32>) -> Self {
        self.expression("lookup", |lookup| {
            lookup.text(1, map);
            lookup.number(2, register);
            lookup.number(3, REGISTER_VERDICT);
            if let Some(id) = id {
                lookup.number(4, id);
            }
        })
    }
}
