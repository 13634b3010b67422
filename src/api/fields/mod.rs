//! Which fields of an object somebody set, and what becomes of two people's opinions of one object.
//!
//! Stands for `sigs.k8s.io/structured-merge-diff`: paths, sets of them, comparing and merging by a kind's shape,
//! and the managers of an object (`metadata.managedFields`). Left out: fields that change their place between
//! two versions of a kind.

mod encoding;
pub mod managers;
pub mod merge;
pub mod shape;
pub mod walk;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// One step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    Field(String),
    /// An item of a list by its keys, as a JSON object's text: `{"name":"web"}`.
    Key(String),
    /// An item of a set, as JSON text.
    Value(String),
    Index(i64),
}

/// A set of paths, as a tree: what lies below, and whether the place itself belongs to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set {
    pub member: bool,
    pub children: BTreeMap<Element, Set>,
}

impl Set {
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    pub fn insert(&mut self, path: &[Element]) {
        let place = path.iter().fold(self, |set, element| set.children.entry(element.clone()).or_default());
        place.member = true;
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, set) in &other.children {
            self.children.entry(element.clone()).or_default().add(set);
        }
    }

    /// Takes out all of another set.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (element, set) in &other.children {
            if let Some(own) = self.children.get_mut(element) {
                own.subtract(set);
                if own.is_empty() {
                    self.children.remove(element);
                }
            }
        }
    }

    /// What is in both.
    pub fn common(&self, other: &Self) -> Self {
        let both = self.children.iter().filter_map(|(element, set)| {
            let common = set.common(other.children.get(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        });
        Self { member: self.member && other.member, children: both.collect() }
    }

    /// Its paths as messages print them: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(&mut String::new(), &mut all);
        all
    }

    fn collect(&self, path: &mut String, all: &mut Vec<String>) {
        if self.member {
            all.push(path.clone());
        }
        let length = path.len();
        for (element, set) in &self.children {
            path.push_str(&element.to_string());
            set.collect(path, all);
            path.truncate(length);
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(out, ".{name}"),
            Self::Value(text) => write!(out, "[={text}]"),
            Self::Index(index) => write!(out, "[{index}]"),
            Self::Key(text) => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
                let pairs: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(out, "[{}]", pairs.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests;
