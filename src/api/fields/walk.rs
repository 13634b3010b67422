//! An object's fields as a set, and the difference of two objects (`typed.ToFieldSet`, `typed.Compare`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::shape::{At, Inside};
use super::{Element, Set};

/// What somebody who sends this value has an opinion on.
pub fn fields(at: At<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    collect(at, value, &mut set);
    set
}

fn collect(at: At<'_>, value: &Value, set: &mut Set) {
    match at.inside(value) {
        Inside::Map(map) if !map.is_empty() => {
            for (name, inner) in map {
                let own = set.children.entry(Element::Field(name.clone())).or_default();
                match at.field(name) {
                    Some(at) => collect(at, inner, own),
                    None => own.member = true,
                }
                own.member |= at.is_item(name) || inner.is_null();
            }
        }
        Inside::List(list) if !list.is_empty() => {
            for (element, item) in at.elements(list) {
                let own = set.children.entry(element).or_default();
                collect(at.item(), item, own);
                own.member = true;
            }
        }
        _ => set.member = true,
    }
}

/// What is different between two objects.
#[derive(Debug, Default, PartialEq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

pub fn compare(at: At<'_>, old: &Value, new: &Value) -> Comparison {
    let mut walk = Walk::default();
    walk.value(at, Some(old), Some(new), false);
    walk.found
}

#[derive(Default)]
struct Walk {
    path: Vec<Element>,
    found: Comparison,
}

impl Walk {
    /// `fresh`: this is inside an item that was not there before.
    fn value(&mut self, at: At<'_>, old: Option<&Value>, new: Option<&Value>, fresh: bool) {
        // Nothing and null are the same here.
        let (old, new) = (old.filter(|old| !old.is_null()), new.filter(|new| !new.is_null()));
        if old == new {
            return;
        }
        let inside = |value: Option<&Value>| match value.map(|value| at.inside(value)) {
            None => Some(0),
            Some(Inside::Map(map)) => Some(map.len()),
            Some(Inside::List(list)) => Some(list.len()),
            Some(Inside::Whole) => None,
        };
        match (inside(old), inside(new)) {
            (None, _) | (_, None) | (Some(0), Some(0)) => return self.leaf(old, new),
            _ => self.inside(at, old, new, fresh),
        }
        // A struct that only holds others was there before in Go, and empty.
        let own = fresh || !matches!(self.path.last(), Some(Element::Field(_))) || at.is_map();
        match (old, new) {
            (None, Some(_)) if own => self.found.added.insert(&self.path),
            (Some(_), None) => self.found.removed.insert(&self.path),
            _ => {}
        }
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, Some(_)) => self.found.added.insert(&self.path),
            (Some(_), None) => self.found.removed.insert(&self.path),
            _ => self.found.modified.insert(&self.path),
        }
    }

    fn inside(&mut self, at: At<'_>, old: Option<&Value>, new: Option<&Value>, fresh: bool) {
        if let Some(Value::Array(_)) = old.or(new) {
            let (before, now) = (items(at, old), items(at, new));
            for (element, item) in &before {
                self.step(element.clone(), at.item(), Some(item), now.get(element).copied(), fresh);
            }
            for (element, item) in now.iter().filter(|(element, _)| !before.contains_key(element)) {
                self.step(element.clone(), at.item(), None, Some(item), true);
            }
            return;
        }
        let empty = serde_json::Map::new();
        let before = old.and_then(Value::as_object).unwrap_or(&empty);
        let now = new.and_then(Value::as_object).unwrap_or(&empty);
        for (name, value) in before {
            if let Some(at) = at.field(name) {
                self.step(Element::Field(name.clone()), at, Some(value), now.get(name), fresh);
            }
        }
        for (name, value) in now.iter().filter(|(name, _)| !before.contains_key(*name)) {
            let fresh = fresh || at.is_item(name);
            if let Some(at) = at.field(name) {
                self.step(Element::Field(name.clone()), at, None, Some(value), fresh);
            }
        }
    }

    fn step(&mut self, element: Element, at: At<'_>, old: Option<&Value>, new: Option<&Value>, fresh: bool) {
        self.path.push(element);
        self.value(at, old, new, fresh);
        self.path.pop();
    }
}

fn items<'v>(at: At<'_>, value: Option<&'v Value>) -> BTreeMap<Element, &'v Value> {
    match value {
        Some(Value::Array(list)) => at.elements(list).into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

/// What of an applied object its kind does not have or cannot tell apart, in upstream's words.
pub fn mistakes(at: At<'_>, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(at, value, &mut String::new(), &mut found);
    found
}

fn check(at: At<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match at.inside(value) {
        Inside::Map(map) => {
            for (name, inner) in map {
                path.push_str(&format!(".{name}"));
                match at.field(name) {
                    Some(at) => check(at, inner, path, found),
                    None => found.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
        }
        Inside::List(list) => {
            let mut seen = std::collections::HashSet::new();
            for (index, item) in list.iter().enumerate() {
                match at.element(item) {
                    Err(key) => found.push(format!(
                        "{path}: element {index}: associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                    )),
                    Ok(element) => {
                        let place = element.to_string();
                        path.push_str(&place);
                        check(at.item(), item, path, found);
                        path.truncate(length);
                        if !seen.insert(element) {
                            found.push(format!("{path}: duplicate entries for key {place}"));
                        }
                    }
                }
            }
        }
        Inside::Whole => {}
    }
}
