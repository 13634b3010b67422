//! nftables by netlink: whole tables written in one transaction.
//!
//! Only what a router and a service proxy need: base and plain chains, verdict maps, and rules made of a
//! dozen expressions. A [`Batch`] is sent as one message, so the kernel takes all of it or nothing, and
//! packets never see a half-written table. No `nft` binary is needed; one that is there lists these
//! tables like its own.

mod rule;
mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::net::Ipv4Addr;

pub use rule::{Protocol, Rule, Verdict};
use wire::{Attributes, Message, exchange};

/// Why a transaction was refused: the step the kernel did not take, and its reason.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error("open an nftables socket")]
    Open(#[source] io::Error),
    #[error("send an nftables transaction")]
    Send(#[source] io::Error),
    #[error("nftables: {step}")]
    Refused { step: String, source: io::Error },
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    Ip = 2,
}

/// Where in a packet's way a base chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
}

/// netfilter's usual places in a hook.
pub mod priority {
    pub const DSTNAT: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const SRCNAT: i32 = 100;
}

/// One key of a service map: address, protocol and port, as `ipv4_addr . inet_proto . inet_service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const NEW_SET: u8 = 9;
const NEW_ELEMENTS: u8 = 12;

/// `ipv4_addr`, `inet_proto` and `inet_service` as nft numbers them, six bits each.
const SERVICE_KEY_TYPE: u32 = (7 << 12) | (12 << 6) | 13;
const INTEGER_TYPE: u32 = 4;
const VERDICT_TYPE: u32 = 0xffff_ff00;
const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_MAP: u32 = 8;
const SET_CONCAT: u32 = 0x80;

/// A transaction on one table, built up and then committed.
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<Message>,
    next_set: u32,
}

impl Batch {
    /// A transaction that replaces `table` by what is added to it.
    pub fn replace(family: Family, table: &str) -> Self {
        let mut batch = Self::remove(family, table);
        batch.push(NEW_TABLE, "add table", |attributes| attributes.text(1, table));
        batch
    }

    /// A transaction that removes `table`, also when it is not there.
    pub fn remove(family: Family, table: &str) -> Self {
        let mut batch = Self { family, table: table.to_owned(), messages: Vec::new(), next_set: 1 };
        batch.push(NEW_TABLE, "add table", |attributes| attributes.text(1, table));
        batch.push(DELETE_TABLE, "delete table", |attributes| attributes.text(1, table));
        batch
    }

    /// Adds a chain that other chains jump to.
    pub fn chain(&mut self, name: &str) {
        let table = self.table.clone();
        self.push(NEW_CHAIN, format!("add chain {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(3, name);
        });
    }

    /// Adds a chain that packets enter at a hook.
    pub fn base_chain(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32) {
        let table = self.table.clone();
        self.push(NEW_CHAIN, format!("add chain {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(3, name);
            attributes.nested(4, |hooked| {
                hooked.number(1, hook as u32);
                hooked.number(2, priority as u32);
            });
            attributes.text(
                7,
                match kind {
                    ChainKind::Filter => "filter",
                    ChainKind::Nat => "nat",
                },
            );
        });
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, chain: &str, rule: &Rule) {
        let table = self.table.clone();
        self.push(NEW_RULE, format!("add rule to {chain}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, chain);
            rule.write(attributes);
        });
    }

    /// Adds a map from address, protocol and port to a verdict, with its elements.
    pub fn service_map(&mut self, name: &str, elements: &[(ServiceKey, Verdict)]) {
        let id = self.new_set(name, SERVICE_KEY_TYPE, 12, SET_MAP | SET_CONCAT);
        let keyed: Vec<_> = elements.iter().map(|(key, verdict)| (key.bytes().to_vec(), verdict)).collect();
        self.elements(name, id, &keyed);
    }

    /// Appends a rule that sends each new connection to one of `chains` by chance.
    pub fn balance(&mut self, chain: &str, chains: &[String]) {
        let id = self.new_set("__map%d", INTEGER_TYPE, 4, SET_MAP | SET_ANONYMOUS | SET_CONSTANT);
        let verdicts: Vec<Verdict> = chains.iter().map(|chain| Verdict::Goto(chain.clone())).collect();
        // numgen leaves a number in the machine's byte order.
        let keyed: Vec<_> = verdicts
            .iter()
            .enumerate()
            .map(|(n, verdict)| ((n as u32).to_ne_bytes().to_vec(), verdict))
            .collect();
        self.elements("__map%d", id, &keyed);
        self.rule(chain, &Rule::new().random_below(chains.len() as u32).verdict_by_set_id("__map%d", id));
    }

    /// Sends the transaction; the kernel has taken all of it when this returns.
    ///
    /// # Errors
    /// [`NftError::Refused`] names the first step the kernel refused; then nothing has changed.
    pub fn commit(self) -> Result<(), NftError> {
        exchange(&self.messages)
    }

    fn new_set(&mut self, name: &str, key_type: u32, key_length: u32, flags: u32) -> u32 {
        let (id, table) = (self.next_set, self.table.clone());
        self.next_set += 1;
        self.push(NEW_SET, format!("add map {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
            attributes.number(3, flags);
            attributes.number(4, key_type);
            attributes.number(5, key_length);
            attributes.number(6, VERDICT_TYPE);
            attributes.number(7, 16);
            if flags & SET_CONCAT != 0 {
                attributes.nested(9, |description| {
                    description.nested(2, |fields| {
                        for _ in 0..3 {
                            fields.nested(1, |field| field.number(1, 4));
                        }
                    });
                });
            }
            attributes.number(10, id);
            if key_type == INTEGER_TYPE {
                // Tells nft, not the kernel, that the keys are in the machine's byte order.
                attributes.bytes(13, &[0, 4, 1, 0, 0, 0]);
            }
        });
        id
    }

    fn elements(&mut self, name: &str, id: u32, elements: &[(Vec<u8>, &Verdict)]) {
        // An attribute's length has 16 bits, so a big map is filled by several messages.
        for some in elements.chunks(200) {
            let table = self.table.clone();
            self.push(NEW_ELEMENTS, format!("fill map {name}"), |attributes| {
                attributes.text(1, &table);
                attributes.text(2, name);
                attributes.number(4, id);
                attributes.nested(3, |list| {
                    for (key, verdict) in some {
                        list.nested(1, |element| {
                            element.nested(1, |data| data.bytes(1, key));
                            element.nested(2, |data| verdict.write(data));
                        });
                    }
                });
            });
        }
    }

    fn push(&mut self, kind: u8, step: impl Into<String>, fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let step = format!("{} in table {}", step.into(), self.table);
        self.messages.push(Message::new(kind, self.family, step, attributes));
    }
}

impl ServiceKey {
    /// Each part padded to four bytes, as registers hold them.
    fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.address.octets());
        bytes[4] = self.protocol as u8;
        bytes[8..10].copy_from_slice(&self.port.to_be_bytes());
        bytes
    }
}
