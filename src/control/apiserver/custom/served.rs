//! Which custom rows there are now.
//!
//! A row's names are kept for as long as the process lives, one set for each that was ever defined (as the
//! store keeps a bucket for each); everything else goes with the definition.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use tokio::sync::watch;

use super::{Slot, Version, text};
use crate::control::apiserver::registry::{Resource, Subresource, strategies};

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const CHANGE: &[&str] = &["get", "patch", "update"];
const STATUS: Subresource = Subresource { name: "status", kind: "", group: "", version: "", verbs: CHANGE };
const SCALE: Subresource =
    Subresource { name: "scale", kind: "Scale", group: "autoscaling", version: "v1", verbs: CHANGE };

/// Tells that the rows are others now.
static CHANGED: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::channel(0).0);

/// What says when the custom rows change, and how often they did.
pub fn changes() -> watch::Receiver<u64> {
    CHANGED.subscribe()
}

static SERVED: RwLock<Vec<&'static Resource>> = RwLock::new(Vec::new());

/// The custom rows, in the order of their definitions' names.
pub fn rows() -> Vec<&'static Resource> {
    SERVED.read().unwrap_or_else(PoisonError::into_inner).clone()
}

pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    let rows = SERVED.read().unwrap_or_else(PoisonError::into_inner);
    rows.iter().find(|row| row.plural == plural && row.group == group && row.version == version).copied()
}

/// Serves what these definitions say, and nothing else.
pub fn replace<'a>(definitions: impl Iterator<Item = &'a Value>) {
    let mut rows = Vec::new();
    for definition in definitions {
        for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
            if version["served"] == true {
                rows.push(row(definition, version));
            }
        }
    }
    *SERVED.write().unwrap_or_else(PoisonError::into_inner) = rows;
    CHANGED.send_modify(|times| *times += 1);
}

/// The row of a served version; one that was there before is given its new contents.
fn row(definition: &Value, version: &Value) -> &'static Resource {
    static ROWS: Mutex<Option<HashMap<String, &'static Resource>>> = Mutex::new(None);
    let read = Version::read(definition, version);
    let spec = &definition["spec"];
    let identity = serde_json::json!([
        spec["group"],
        version["name"],
        spec["names"],
        spec["scope"],
        read.status,
        read.scale.is_some()
    ]);
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = rows.get_or_insert_default();
    if let Some(row) = rows.get(&identity.to_string()) {
        if let Some(slot) = &row.custom {
            slot.set(read);
        }
        return row;
    }
    let made: &'static Resource = Box::leak(Box::new(make(spec, version, read)));
    rows.insert(identity.to_string(), made);
    made
}

fn make(spec: &Value, version: &Value, read: Version) -> Resource {
    let names = &spec["names"];
    let (group, plural) = (text(spec, "group"), text(names, "plural"));
    Resource {
        group: kept(group),
        version: kept(text(version, "name")),
        kind: kept(text(names, "kind")),
        list_kind: kept(text(names, "listKind")),
        plural: kept(plural),
        singular: kept(text(names, "singular")),
        short_names: all_kept(&names["shortNames"]),
        categories: all_kept(&names["categories"]),
        namespaced: text(spec, "scope") == "Namespaced",
        verbs: VERBS,
        subresources: match (read.status, read.scale.is_some()) {
            (true, true) => &[SCALE, STATUS],
            (true, false) => &[STATUS],
            (false, true) => &[SCALE],
            (false, false) => &[],
        },
        create_on_update: false,
        returns_deleted: false,
        decode: |_| Err("a custom object is read by its schema".into()),
        strategy: strategies::of("", ""),
        schema: schemars::SchemaGenerator::subschema_for::<ObjectMeta>,
        bucket: format!("/registry/{group}/{plural}/"),
        shape: OnceLock::new(),
        form: None,
        custom: Some(Slot::new(read)),
    }
}

/// One copy of a word for ever.
fn kept(word: &str) -> &'static str {
    static WORDS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    let words = words.get_or_insert_default();
    if let Some(word) = words.get(word) {
        return word;
    }
    let word: &'static str = Box::leak(word.to_owned().into_boxed_str());
    words.insert(word);
    word
}

fn all_kept(list: &Value) -> &'static [&'static str] {
    let words: Vec<&'static str> =
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(kept).collect();
    if words.is_empty() { &[] } else { Box::leak(words.into_boxed_slice()) }
}
