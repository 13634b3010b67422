//! Two objects made one, and what its applier no longer wants taken out (`typed.Merge`, `merge.prune`).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::shape::{At, Inside};
use super::{Element, Set};

/// The live object with everything the applied one has an opinion on.
pub fn merge(at: At<'_>, live: &Value, applied: &Value) -> Value {
    match (at.inside(live), at.inside(applied)) {
        (Inside::Map(live), Inside::Map(applied)) => {
            let mut out: Map<String, Value> = live.clone();
            for (name, value) in applied {
                let merged = match (live.get(name), at.field(name)) {
                    (Some(live), Some(at)) => merge(at, live, value),
                    _ => value.clone(),
                };
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Inside::List(live), Inside::List(applied)) => Value::Array(lists(at, live, applied)),
        _ => applied.clone(),
    }
}

/// In the applied order; items only the live list has keep their places among those.
fn lists(at: At<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let (live, applied) = (at.elements(live), at.elements(applied));
    let wanted: HashMap<&Element, usize> =
        applied.iter().enumerate().map(|(index, (element, _))| (element, index)).collect();
    let places: HashMap<&Element, usize> =
        live.iter().enumerate().map(|(index, (element, _))| (element, index)).collect();
    let (mut out, mut next) = (Vec::new(), 0);
    for (element, item) in &applied {
        let Some(place) = places.get(element) else {
            out.push((*item).clone());
            continue;
        };
        while next < *place {
            out.extend((!wanted.contains_key(&live[next].0)).then(|| live[next].1.clone()));
            next += 1;
        }
        next = next.max(place + 1);
        out.push(merge(at.item(), live[*place].1, item));
    }
    let left = live[next.min(live.len())..].iter().filter(|(element, _)| !wanted.contains_key(element));
    out.extend(left.map(|(_, item)| (*item).clone()));
    out
}

/// Takes out what the applier had set before and nobody wants any more.
pub fn prune(at: At<'_>, value: &mut Value, last: &Set, wanted: &Set) {
    match value {
        Value::Object(map) => {
            for (element, last) in &last.children {
                let Element::Field(name) = element else { continue };
                let Some(inner) = map.get_mut(name) else { continue };
                match (wanted.children.get(element), at.field(name)) {
                    (Some(wanted), Some(at)) => prune(at, inner, last, wanted),
                    (None, _) => drop(map.remove(name)),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            let nobody = Set::default();
            let mut index = 0;
            list.retain_mut(|item| {
                let element = at.element(item).unwrap_or(Element::Index(index));
                index += 1;
                let Some(last) = last.children.get(&element) else { return true };
                let wanted = wanted.children.get(&element);
                if wanted.is_none() && last.member {
                    return false;
                }
                prune(at.item(), item, last, wanted.unwrap_or(&nobody));
                true
            });
        }
        _ => {}
    }
}
