//! nftables by netlink: whole tables written in one transaction.
//!
//! Only what a router and a service proxy need: base and plain chains, verdict maps, and rules made of a
//! dozen expressions. A [`Batch`] is sent as one message, so the kernel takes all of it or nothing, and
//! packets never see a half-written table. No `nft` binary is needed; one that is there lists these
//! tables like its own.

mod rule;
mod set;
mod table;
pub(super) mod wire;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

use rule::{Choice, Part};
pub use rule::{Protocol, Rule, Verdict};
use set::ENDPOINT_TYPE;
pub use set::{Key, KeyKind, ServiceKey, SetKind};
pub use table::Table;
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
    Input = 1,
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

const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const DELETE_CHAIN: u8 = 5;
const NEW_RULE: u8 = 6;
const DELETE_RULE: u8 = 8;
const NEW_SET: u8 = 9;
const DELETE_SET: u8 = 11;
const NEW_ELEMENTS: u8 = 12;
const DELETE_ELEMENTS: u8 = 14;

const INTEGER_TYPE: u32 = 4;
const VERDICT_TYPE: u32 = 0xffff_ff00;
/// `NFT_TABLE_F_OWNER`
const OWNER: u32 = 2;
const SET_ANONYMOUS: u32 = 1;
const SET_CONSTANT: u32 = 2;
const SET_MAP: u32 = 8;
/// The most addresses a set that rules fill may remember.
const MOST_REMEMBERED: u32 = 65_535;

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

    /// A transaction that makes `table`, owned by the socket that [`Self::commit_owned`] gives: when that is
    /// closed, however its process ends, the kernel removes the table (`NFT_TABLE_F_OWNER`).
    pub fn owned(family: Family, table: &str) -> Self {
        let mut batch = Self::change(family, table);
        batch.push(NEW_TABLE, "add table", |attributes| {
            attributes.text(1, table);
            attributes.number(2, OWNER);
        });
        batch
    }

    /// A transaction on what `table` holds already.
    pub fn change(family: Family, table: &str) -> Self {
        Self { family, table: table.to_owned(), messages: Vec::new(), next_set: 0 }
    }

    /// A transaction that removes `table`, also when it is not there.
    pub fn remove(family: Family, table: &str) -> Self {
        let mut batch = Self::change(family, table);
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

    /// Removes every rule of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let table = self.table.clone();
        self.push(DELETE_RULE, format!("flush chain {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
        });
    }

    /// Removes a chain nothing leads to any more.
    pub fn delete_chain(&mut self, name: &str) {
        let table = self.table.clone();
        self.push(DELETE_CHAIN, format!("delete chain {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(3, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, chain: &str, rule: &Rule) {
        let mut expressions = Attributes::default();
        for part in rule.parts() {
            match part {
                Part::Expression(expression) => expressions.append(expression),
                Part::Choice(choice) => {
                    let id = self.anonymous_map(choice);
                    expressions.append(&choice.lookup("__map%d", id));
                }
            }
        }
        let table = self.table.clone();
        self.push(NEW_RULE, format!("add rule to {chain}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, chain);
            attributes.nested(4, |list| list.append(&expressions));
        });
    }

    /// Adds a set or map, empty.
    pub fn set(&mut self, name: &str, kind: SetKind) {
        let (id, table) = (self.next_id(), self.table.clone());
        self.push(NEW_SET, format!("add set {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
            attributes.number(3, kind.flags());
            attributes.number(4, kind.keys().type_number());
            attributes.number(5, 4 * kind.keys().words() as u32);
            if let SetKind::Verdicts(_) = kind {
                attributes.number(6, VERDICT_TYPE);
                attributes.number(7, 16);
            }
            attributes.nested(9, |description| match kind {
                SetKind::Remembered(_) => description.number(1, MOST_REMEMBERED),
                _ if kind.keys().words() > 1 => description.nested(2, |fields| {
                    for _ in 0..kind.keys().words() {
                        fields.nested(1, |field| field.number(1, 4));
                    }
                }),
                _ => {}
            });
            attributes.number(10, id);
            if let SetKind::Remembered(time) = kind {
                attributes.long(11, time.as_millis() as u64);
            }
        });
    }

    /// Removes a set no rule asks any more.
    pub fn delete_set(&mut self, name: &str) {
        let table = self.table.clone();
        self.push(DELETE_SET, format!("delete set {name}"), |attributes| {
            attributes.text(1, &table);
            attributes.text(2, name);
        });
    }

    /// Adds elements to a named set or map.
    pub fn add_elements(&mut self, name: &str, elements: &[(Key, Option<&Verdict>)]) {
        self.elements(NEW_ELEMENTS, name, None, elements.len(), |at, element| {
            let (key, verdict) = &elements[at];
            element.nested(1, |data| data.bytes(1, &key.bytes()));
            if let Some(verdict) = verdict {
                element.nested(2, |data| verdict.write(data));
            }
        });
    }

    /// Removes elements of a named set or map.
    pub fn delete_elements(&mut self, name: &str, keys: &[Key]) {
        self.elements(DELETE_ELEMENTS, name, None, keys.len(), |at, element| {
            element.nested(1, |data| data.bytes(1, &keys[at].bytes()));
        });
    }

    /// Sends the transaction; the kernel has taken all of it when this returns.
    ///
    /// # Errors
    /// [`NftError::Refused`] names the first step the kernel refused; then nothing has changed.
    pub fn commit(self) -> Result<(), NftError> {
        exchange(&self.messages)
    }

    /// Sends the transaction of a table that lives as long as the descriptor this gives.
    pub fn commit_owned(self) -> Result<OwnedFd, NftError> {
        let socket = wire::open()?;
        wire::exchange_on(&socket, &self.messages)?;
        Ok(socket)
    }

    /// A map of a rule's own, from 0, 1, 2… to what is chosen.
    fn anonymous_map(&mut self, choice: &Choice) -> u32 {
        let (id, table) = (self.next_id(), self.table.clone());
        let (data_type, data_length) = match choice {
            Choice::Chains(_) => (VERDICT_TYPE, 16),
            Choice::Endpoints(_) => (ENDPOINT_TYPE, 8),
        };
        self.push(NEW_SET, "add map", |attributes| {
            attributes.text(1, &table);
            attributes.text(2, "__map%d");
            attributes.number(3, SET_MAP | SET_ANONYMOUS | SET_CONSTANT);
            attributes.number(4, INTEGER_TYPE);
            attributes.number(5, 4);
            attributes.number(6, data_type);
            attributes.number(7, data_length);
            attributes.number(10, id);
            // Tells nft, not the kernel, that the keys are in the machine's byte order.
            attributes.bytes(13, &[0, 4, 1, 0, 0, 0]);
        });
        self.elements(NEW_ELEMENTS, "__map%d", Some(id), choice.len(), |at, element| {
            // numgen leaves a number in the machine's byte order.
            element.nested(1, |data| data.bytes(1, &(at as u32).to_ne_bytes()));
            element.nested(2, |data| choice.write(at, data));
        });
        id
    }

    /// Messages that add or remove `count` elements, each written by `fill`.
    fn elements(
        &mut self,
        kind: u8,
        name: &str,
        id: Option<u32>,
        count: usize,
        mut fill: impl FnMut(usize, &mut Attributes),
    ) {
        // An attribute's length has 16 bits, so a big set is filled by several messages.
        for first in (0..count).step_by(200) {
            let table = self.table.clone();
            self.push(kind, format!("change the elements of {name}"), |attributes| {
                attributes.text(1, &table);
                attributes.text(2, name);
                if let Some(id) = id {
                    attributes.number(4, id);
                }
                attributes.nested(3, |list| {
                    for at in first..count.min(first + 200) {
                        list.nested(1, |element| fill(at, element));
                    }
                });
            });
        }
    }

    fn next_id(&mut self) -> u32 {
        self.next_set += 1;
        self.next_set
    }

    fn push(&mut self, kind: u8, step: impl Into<String>, fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let step = format!("{} in table {}", step.into(), self.table);
        self.messages.push(Message::new(kind, self.family, step, attributes));
    }
}
