//! The list half of a strategic merge patch: items by key, scalars as sets, and the order asked for.

use serde_json::{Map, Value};

use super::super::merge_keys::{Merge, Type};
use super::{Result, Status, bad, fresh, go_text, internal, merge_map};

/// Merges, or replaces where the field has no merge strategy.
pub(super) fn merge_list(
    old: Vec<Value>,
    new: Vec<Value>,
    merge: Merge,
    of: &'static Type,
) -> Result<Vec<Value>> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    if old.iter().chain(&new).any(Value::is_array) && merge != Merge::Default {
        return Err(Status::new(422, "Invalid", "lists of lists are not supported"));
    }
    match merge {
        Merge::Keyed(key) | Merge::KeyedRetain(key) => merge_items(old, new, key, of),
        Merge::Set => {
            let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
            for item in old.into_iter().chain(new) {
                if !merged.contains(&item) {
                    merged.push(item);
                }
            }
            Ok(merged)
        }
        Merge::Default | Merge::Replace | Merge::Retain => replace(new),
    }
}

/// An atomic list: only `$patch: delete` and `$patch: replace` items are not content.
fn replace(new: Vec<Value>) -> Result<Vec<Value>> {
    let items = new.into_iter().filter(|item| item.get("$patch").is_none());
    items.map(fresh).collect()
}

fn merge_items(mut old: Vec<Value>, new: Vec<Value>, key: &str, of: &'static Type) -> Result<Vec<Value>> {
    let (special, plain): (Vec<Value>, Vec<Value>) =
        new.into_iter().partition(|item| item.get("$patch").is_some());
    let mut replace_all = false;
    for item in &special {
        match item["$patch"].as_str() {
            Some("delete") => {
                let gone = id(item, key)?.clone();
                old.retain(|item| item.get(key) != Some(&gone));
            }
            Some("replace") => replace_all = true,
            Some("merge") => {
                return Err(internal("merging lists cannot yet be specified in the patch".to_owned()));
            }
            _ => {
                let (kind, map) = (go_text(&item["$patch"]), go_text(item));
                return Err(internal(format!("unknown patch type: {kind} in map: {map}")));
            }
        }
    }
    if replace_all {
        return plain.into_iter().map(fresh).collect();
    }
    for item in plain {
        let wanted = id(&item, key)?.clone();
        match (old.iter_mut().find(|own| own.get(key) == Some(&wanted)), item) {
            (Some(Value::Object(own)), Value::Object(change)) => {
                *own = merge_map(std::mem::take(own), change, of)?;
            }
            (_, item) => old.push(fresh(item)?),
        }
    }
    Ok(old)
}

/// The item's merge key.
fn id<'a>(item: &'a Value, key: &str) -> Result<&'a Value> {
    let missing = || internal(format!("map: {} does not contain declared merge key: {key}", go_text(item)));
    item.get(key).filter(|value| !value.is_null()).ok_or_else(missing)
}

/// `$deleteFromPrimitiveList/FIELD`.
pub(super) fn delete_scalars(original: &mut Map<String, Value>, field: &str, gone: &Value) -> Result<()> {
    let Some(gone) = gone.as_array() else { return Err(bad("invalid patch format of primitive list")) };
    if let Some(Value::Array(items)) = original.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// Applies every `$setElementOrder/FIELD` together with the field's own patch: items the patch names
/// come in its order, those only the server has keep their place relative to their neighbours.
pub(super) fn set_element_order(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    of: &'static Type,
) -> Result<()> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with("$setElementOrder/")).cloned().collect();
    for directive in directives {
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(bad("invalid patch format of setElementOrder list"));
        };
        let field = directive.trim_start_matches("$setElementOrder/");
        let (merge, inner) = of.field(field);
        let place = Place { order: &order, key: merge.key() };
        let before = match original.get(field) {
            Some(Value::Array(items)) => Some(items.clone()),
            _ => None,
        };
        if let Some(Value::Array(gone)) = patch.get(&format!("$deleteFromPrimitiveList/{field}")) {
            delete_scalars(original, field, &Value::Array(gone.clone()))?;
        }
        let change = match patch.get(field) {
            Some(Value::Array(_)) => patch.remove(field),
            Some(_) => continue,
            None => None,
        };
        let merged = match (original.remove(field), change) {
            (Some(Value::Array(old)), Some(Value::Array(new))) => {
                place.check(&new, &directive)?;
                merge_list(old, new, merge, inner)?
            }
            (Some(Value::Array(old)), _) => old,
            (_, Some(Value::Array(new))) => merge_list(Vec::new(), new, merge, inner)?,
            _ => continue,
        };
        let arranged = place.arrange(merged, &before.unwrap_or_default());
        original.insert(field.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

/// The order a patch asks for, and how its items are told apart.
struct Place<'a> {
    order: &'a [Value],
    key: Option<&'static str>,
}

impl Place<'_> {
    fn identity<'v>(&self, item: &'v Value) -> &'v Value {
        self.key.and_then(|key| item.get(key)).unwrap_or(item)
    }

    fn position(&self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|own| self.identity(own) == self.identity(item))
    }

    /// A patch's items must follow the order it declares.
    fn check(&self, new: &[Value], directive: &str) -> Result<()> {
        let content = new.iter().filter(|item| item["$patch"] != "delete");
        let mut last = 0;
        for item in content.filter(|item| item["$patch"] != "replace") {
            match self.position(self.order, item) {
                Some(at) if at >= last => last = at,
                _ => {
                    let (list, order) =
                        (go_text(&Value::from(new.to_vec())), go_text(&Value::from(self.order.to_vec())));
                    let name = directive.split('/').next().unwrap_or_default();
                    return Err(internal(format!(
                        "The order in patch list:\n{list}\n doesn't match {name} list:\n{order}\n"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Two sorted runs, the patch's and the server's, zipped by the server's former order.
    fn arrange(&self, merged: Vec<Value>, before: &[Value]) -> Vec<Value> {
        let (mut asked, mut own): (Vec<Value>, Vec<Value>) =
            merged.into_iter().partition(|item| self.position(self.order, item).is_some());
        asked.sort_by_key(|item| self.position(self.order, item));
        own.sort_by_key(|item| self.position(before, item).unwrap_or(usize::MAX));
        let mut all = Vec::with_capacity(asked.len() + own.len());
        let (mut asked, mut own) = (asked.into_iter().peekable(), own.into_iter().peekable());
        while let (Some(left), Some(right)) = (own.peek(), asked.peek()) {
            let first = match (self.position(before, left), self.position(before, right)) {
                (Some(left), Some(right)) => left < right,
                _ => false,
            };
            all.extend(if first { own.next() } else { asked.next() });
        }
        all.extend(own.chain(asked));
        all
    }
}
