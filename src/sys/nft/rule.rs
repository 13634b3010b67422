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
    Accept,
    Drop,
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
            Self::Accept => (1, None),
            Self::Drop => (0, None),
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
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;
const META_MARK: u32 = 3;
const META_PROTOCOL: u32 = 16;
const CT_NEW: u32 = 8;
const CT_ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const FIB_TYPE: u32 = 3;
const FIB_OF_SOURCE: u32 = 1;
const FIB_OF_DESTINATION: u32 = 2;
const ROUTE_LOCAL: u32 = 2;
const DYNSET_UPDATE: u32 = 1;
const FULLY_RANDOM: u32 = 1 << 4;

/// One rule, written left to right: matches first, then what to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    parts: Vec<Part>,
}

/// What a rule is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Expression(Attributes),
    /// A look into a map that belongs to the rule, by the number in the first register.
    Choice(Choice),
}

/// What a number leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Chains(Vec<Verdict>),
    Endpoints(Vec<(Ipv4Addr, u16)>),
}

impl Choice {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Chains(chains) => chains.len(),
            Self::Endpoints(endpoints) => endpoints.len(),
        }
    }

    pub(super) fn write(&self, at: usize, data: &mut Attributes) {
        match self {
            Self::Chains(chains) => chains[at].write(data),
            Self::Endpoints(endpoints) => {
                let (address, port) = endpoints[at];
                let mut value = address.octets().to_vec();
                value.extend(port.to_be_bytes());
                value.resize(8, 0);
                data.bytes(1, &value);
            }
        }
    }

    /// The expression that looks into the map; an endpoint lands in the first two words.
    pub(super) fn lookup(&self, map: &str, id: u32) -> Attributes {
        let destination = match self {
            Self::Chains(_) => REGISTER_VERDICT,
            Self::Endpoints(_) => REGISTER_1,
        };
        expression("lookup", |lookup| {
            lookup.text(1, map);
            lookup.number(2, REGISTER_1);
            lookup.number(3, destination);
            lookup.number(4, id);
        })
    }
}

fn expression(name: &str, fill: impl FnOnce(&mut Attributes)) -> Attributes {
    let mut list = Attributes::default();
    list.nested(1, |expression| {
        expression.text(1, name);
        expression.nested(2, fill);
    });
    list
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

    /// `ip daddr != NET`.
    pub fn destination_outside(self, net: Ipv4Net) -> Self {
        self.address(DESTINATION, net, NOT_EQUAL)
    }

    /// `ip saddr @SET`.
    pub fn source_in(self, set: &str) -> Self {
        self.payload(NETWORK_HEADER, SOURCE, 4, REGISTER_1).member(set, REGISTER_1)
    }

    /// `ip daddr @SET`.
    pub fn destination_in(self, set: &str) -> Self {
        self.payload(NETWORK_HEADER, DESTINATION, 4, REGISTER_1).member(set, REGISTER_1)
    }

    /// `ip saddr . ip daddr @SET`.
    pub fn both_ends_in(self, set: &str) -> Self {
        self.payload(NETWORK_HEADER, SOURCE, 4, WORD_0)
            .payload(NETWORK_HEADER, DESTINATION, 4, WORD_0 + 1)
            .member(set, WORD_0)
    }

    /// `ip daddr . meta l4proto . th dport @SET`.
    pub fn service_in(self, set: &str) -> Self {
        self.service_key().member(set, WORD_0)
    }

    /// `fib saddr type local`: the sender is this machine.
    pub fn source_is_this_machine(self) -> Self {
        self.expression("fib", |fib| {
            fib.number(1, REGISTER_1);
            fib.number(2, FIB_TYPE);
            fib.number(3, FIB_OF_SOURCE);
        })
        .compare(REGISTER_1, EQUAL, &ROUTE_LOCAL.to_ne_bytes())
    }

    /// `fib daddr type local`: it is sent to one of this machine's addresses.
    pub fn destination_is_local(self) -> Self {
        self.expression("fib", |fib| {
            fib.number(1, REGISTER_1);
            fib.number(2, FIB_TYPE);
            fib.number(3, FIB_OF_DESTINATION);
        })
        .compare(REGISTER_1, EQUAL, &ROUTE_LOCAL.to_ne_bytes())
    }

    /// `update @SET { ip saddr }`: remembers the sender, or remembers it anew.
    pub fn remember_source(self, set: &str) -> Self {
        self.payload(NETWORK_HEADER, SOURCE, 4, REGISTER_1).expression("dynset", |dynset| {
            dynset.text(1, set);
            dynset.number(3, DYNSET_UPDATE);
            dynset.number(4, REGISTER_1);
        })
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

    /// `P dport FIRST-LAST`.
    pub fn destination_ports(self, protocol: Protocol, first: u16, last: u16) -> Self {
        self.protocol(protocol)
            .payload(TRANSPORT_HEADER, DESTINATION_PORT, 2, REGISTER_1)
            .compare(REGISTER_1, AT_LEAST, &first.to_be_bytes())
            .compare(REGISTER_1, AT_MOST, &last.to_be_bytes())
    }

    /// `ct state new`.
    pub fn new_connection(self) -> Self {
        self.connection_state(CT_NEW)
    }

    /// `ct state established,related`.
    pub fn known_connection(self) -> Self {
        self.connection_state(CT_ESTABLISHED_OR_RELATED)
    }

    fn connection_state(self, states: u32) -> Self {
        self.expression("ct", |ct| {
            ct.number(1, REGISTER_1);
            ct.number(2, 0);
        })
        .bits(states, 0)
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
        self.service_key().lookup(map, WORD_0)
    }

    /// `meta l4proto . th dport vmap @MAP`.
    pub fn verdict_by_port(self, map: &str) -> Self {
        self.meta(META_PROTOCOL, WORD_0)
            .payload(TRANSPORT_HEADER, DESTINATION_PORT, 2, WORD_0 + 1)
            .lookup(map, WORD_0)
    }

    /// `ip saddr vmap @MAP`.
    pub fn verdict_by_source(self, map: &str) -> Self {
        self.payload(NETWORK_HEADER, SOURCE, 4, REGISTER_1).lookup(map, REGISTER_1)
    }

    /// `ip daddr vmap @MAP`.
    pub fn verdict_by_destination(self, map: &str) -> Self {
        self.payload(NETWORK_HEADER, DESTINATION, 4, REGISTER_1).lookup(map, REGISTER_1)
    }

    /// `numgen random mod N vmap { 0 : goto CHAIN, … }`: each new connection to one of them by chance.
    pub fn balance_chains(self, chains: &[String]) -> Self {
        let verdicts = chains.iter().map(|chain| Verdict::Goto(chain.clone())).collect();
        self.random_below(chains.len() as u32).choose(Choice::Chains(verdicts))
    }

    /// `dnat to numgen random mod N map { 0 : ADDRESS . PORT, … }`.
    pub fn balance_endpoints(self, protocol: Protocol, endpoints: &[(Ipv4Addr, u16)]) -> Self {
        self.protocol(protocol)
            .random_below(endpoints.len() as u32)
            .choose(Choice::Endpoints(endpoints.to_vec()))
            .destination_nat(WORD_0, WORD_0 + 1)
    }

    fn service_key(self) -> Self {
        self.payload(NETWORK_HEADER, DESTINATION, 4, WORD_0).meta(META_PROTOCOL, WORD_0 + 1).payload(
            TRANSPORT_HEADER,
            DESTINATION_PORT,
            2,
            WORD_0 + 2,
        )
    }

    fn random_below(self, modulus: u32) -> Self {
        self.expression("numgen", |numgen| {
            numgen.number(1, REGISTER_1);
            numgen.number(2, modulus);
            numgen.number(3, 1);
        })
    }

    fn choose(mut self, choice: Choice) -> Self {
        self.parts.push(Part::Choice(choice));
        self
    }

    fn destination_nat(self, address: u32, port: u32) -> Self {
        self.expression("nat", |nat| {
            nat.number(1, 1);
            nat.number(2, 2);
            nat.number(3, address);
            nat.number(5, port);
        })
    }

    /// `counter`: packets and bytes that got this far.
    pub fn counter(self) -> Self {
        self.expression("counter", |_| {})
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

    pub fn goto(self, chain: &str) -> Self {
        self.verdict(&Verdict::Goto(chain.to_owned()))
    }

    /// `dnat to ADDRESS:PORT`.
    pub fn dnat(self, address: Ipv4Addr, port: u16) -> Self {
        self.load(REGISTER_1, &address.octets())
            .load(REGISTER_2, &port.to_be_bytes())
            .destination_nat(REGISTER_1, REGISTER_2)
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

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        let more = expression(name, fill);
        match self.parts.last_mut() {
            Some(Part::Expression(list)) => list.append(&more),
            _ => self.parts.push(Part::Expression(more)),
        }
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

    fn lookup(self, map: &str, register: u32) -> Self {
        self.expression("lookup", |lookup| {
            lookup.text(1, map);
            lookup.number(2, register);
            lookup.number(3, REGISTER_VERDICT);
        })
    }

    fn member(self, set: &str, register: u32) -> Self {
        self.expression("lookup", |lookup| {
            lookup.text(1, set);
            lookup.number(2, register);
        })
    }
}
