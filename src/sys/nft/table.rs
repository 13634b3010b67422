//! A whole table as a value: what it should hold, and the transaction from what it held before.
//!
//! Rules and elements are compared as they would be written, so a change of one chain or one element
//! costs one chain or one element, however big the table is.

use std::collections::BTreeMap;

use super::{Batch, ChainKind, Family, Hook, Key, Rule, SetKind, Verdict};

/// Where packets enter a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Chain {
    base: Option<Base>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    kind: SetKind,
    elements: BTreeMap<Key, Option<Verdict>>,
}

/// The contents of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    sets: BTreeMap<String, Set>,
    chains: BTreeMap<String, Chain>,
}

impl Table {
    /// A chain that others jump to.
    pub fn chain(&mut self, name: &str) {
        self.chains.entry(name.to_owned()).or_default();
    }

    pub fn base_chain(&mut self, name: &str, kind: ChainKind, hook: Hook, priority: i32) {
        self.chains.entry(name.to_owned()).or_default().base = Some(Base { kind, hook, priority });
    }

    /// Appends a rule, to a chain that is made when it is not there.
    pub fn rule(&mut self, chain: &str, rule: Rule) {
        self.chains.entry(chain.to_owned()).or_default().rules.push(rule);
    }

    pub fn set(&mut self, name: &str, kind: SetKind) {
        self.sets.entry(name.to_owned()).or_insert_with(|| Set { kind, elements: BTreeMap::new() });
    }

    pub fn has_set(&self, name: &str) -> bool {
        self.sets.contains_key(name)
    }

    /// Puts an element into a set that was declared before.
    pub fn element(&mut self, set: &str, key: Key) {
        self.put(set, key, None);
    }

    /// Puts an element into a map that was declared before.
    pub fn verdict(&mut self, map: &str, key: Key, verdict: Verdict) {
        self.put(map, key, Some(verdict));
    }

    fn put(&mut self, set: &str, key: Key, verdict: Option<Verdict>) {
        if let Some(set) = self.sets.get_mut(set) {
            // The first one wins, as the first of two services that claim one address does.
            set.elements.entry(key).or_insert(verdict);
        }
    }

    /// Takes the place of whatever the table holds.
    pub fn replace(&self, family: Family, name: &str) -> Batch {
        let mut batch = Batch::replace(family, name);
        self.write_difference(&Self::default(), &mut batch);
        batch
    }

    /// From `old`, which the table is known to hold, to this. Empty when nothing differs.
    pub fn difference(&self, old: &Self, family: Family, name: &str) -> Batch {
        let mut batch = Batch::change(family, name);
        self.write_difference(old, &mut batch);
        batch
    }

    /// How many chains and sets differ.
    pub fn distance(&self, old: &Self) -> usize {
        differing(&self.chains, &old.chains) + differing(&self.sets, &old.sets)
    }

    /// What is new comes first, since rules refer to it; what is no longer wanted goes last.
    fn write_difference(&self, old: &Self, batch: &mut Batch) {
        for (name, set) in self.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            batch.set(name, set.kind);
        }
        for (name, chain) in self.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            match chain.base {
                Some(base) => batch.base_chain(name, base.kind, base.hook, base.priority),
                None => batch.chain(name),
            }
        }
        self.take_out_elements(old, batch);
        for (name, chain) in old.chains.iter().filter(|(_, chain)| !chain.rules.is_empty()) {
            if self.chains.get(name).is_none_or(|new| new.rules != chain.rules) {
                batch.flush_chain(name);
            }
        }
        for (name, chain) in &self.chains {
            if old.chains.get(name).is_none_or(|old| old.rules != chain.rules) {
                chain.rules.iter().for_each(|rule| batch.rule(name, rule));
            }
        }
        self.put_in_elements(old, batch);
        for name in old.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            batch.delete_chain(name);
        }
        for name in old.sets.keys().filter(|name| !self.sets.contains_key(*name)) {
            batch.delete_set(name);
        }
    }

    fn take_out_elements(&self, old: &Self, batch: &mut Batch) {
        for (name, set) in &old.sets {
            // Also those of a set that goes: a verdict among them holds a chain that goes.
            let kept = self.sets.get(name);
            let gone = set
                .elements
                .iter()
                .filter(|(key, verdict)| kept.and_then(|kept| kept.elements.get(*key)) != Some(*verdict));
            batch.delete_elements(name, &gone.map(|(key, _)| *key).collect::<Vec<_>>());
        }
    }

    fn put_in_elements(&self, old: &Self, batch: &mut Batch) {
        for (name, set) in &self.sets {
            let known = old.sets.get(name);
            let fresh = set
                .elements
                .iter()
                .filter(|(key, verdict)| known.and_then(|known| known.elements.get(*key)) != Some(*verdict));
            batch.add_elements(
                name,
                &fresh.map(|(key, verdict)| (*key, verdict.as_ref())).collect::<Vec<_>>(),
            );
        }
    }
}

fn differing<T: PartialEq>(new: &BTreeMap<String, T>, old: &BTreeMap<String, T>) -> usize {
    let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(*value)).count();
    changed + old.keys().filter(|name| !new.contains_key(*name)).count()
}
