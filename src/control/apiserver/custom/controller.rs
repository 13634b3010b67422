//! What happens to definitions: names accepted, served, and taken down with their objects
//! (`apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{FINALIZER, GROUP, PLURAL, definition, served, text};
use crate::control::apiserver::encode;
use crate::control::apiserver::handlers::meta;
use crate::control::apiserver::registry::{self, Resource};
use crate::control::apiserver::server::Api;
use crate::control::store::{Change, Entry, Expect, Store};

/// How often what is on its way out is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long to wait after the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);

fn row() -> &'static Resource {
    registry::by_name(GROUP, PLURAL).expect("the table has definitions")
}

/// Everything defined now.
fn all(store: &Store) -> Vec<(Entry, Value)> {
    let Ok(page) = store.list(&row().bucket, "", None, None, None) else { return Vec::new() };
    page.entries
        .into_iter()
        .filter_map(|entry| encode::object(&entry).ok().map(|object| (entry, object)))
        .collect()
}

/// Serves what was defined before this server started.
pub fn load(store: &Store) {
    serve(&all(store));
}

fn serve(definitions: &[(Entry, Value)]) {
    let accepted = |object: &Value| conflict(object, definitions).is_none();
    served::replace(definitions.iter().map(|(_, object)| object).filter(|object| accepted(object)));
}

/// Follows the definitions until the store closes.
pub async fn keep(api: Arc<Api>) {
    loop {
        let from = api.store.revision();
        let definitions = all(&api.store);
        serve(&definitions);
        let mut leaving = false;
        for (entry, object) in &definitions {
            leaving |= meta::deleting(object);
            reconcile(&api.store, entry, object, &definitions).await;
        }
        let Ok(mut watch) = api.store.watch(&row().bucket, from) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if leaving {
            // What it waits for is in other buckets.
            let _ = tokio::time::timeout(LOOK, watch.next()).await;
        } else if watch.next().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn reconcile(store: &Store, entry: &Entry, object: &Value, all: &[(Entry, Value)]) {
    let mut new = object.clone();
    if meta::deleting(object) {
        if !has_finalizer(object) || !emptied(store, object).await {
            return;
        }
        let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let rest: Vec<Value> = finalizers.into_iter().filter(|one| one != FINALIZER).collect();
        let gone = rest.is_empty();
        meta::set(&mut new, "finalizers", if gone { Value::Null } else { rest.into() });
        let draft = encode::draft(&new);
        return write(store, entry, if gone { Change::Delete(draft) } else { Change::Put(draft) }).await;
    }
    match conflict(object, all) {
        None => {
            definition::set_condition(&mut new, "NamesAccepted", true, "NoConflicts", "no conflicts found");
            let text = "the initial names have been accepted";
            definition::set_condition(&mut new, "Established", true, "InitialNamesAccepted", text);
            new["status"]["acceptedNames"] = object["spec"]["names"].clone();
        }
        Some((reason, why)) => {
            definition::set_condition(&mut new, "NamesAccepted", false, reason, &why);
            let text = "not all names are accepted";
            definition::set_condition(&mut new, "Established", false, "NotAccepted", text);
        }
    }
    if new != *object {
        write(store, entry, Change::Put(encode::draft(&new))).await;
    }
}

/// A lost race is looked at again: the other's write wakes the loop.
async fn write(store: &Store, entry: &Entry, change: Change) {
    let expect = Some(Expect::Revision(entry.mod_revision));
    if let Err(error) = store.write(&row().bucket, &entry.key, expect, change).await {
        tracing::debug!(%error, name = &*entry.key, "a definition was not written");
    }
}

fn has_finalizer(object: &Value) -> bool {
    let mut finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    finalizers.any(|one| one == FINALIZER)
}

/// The name that another definition of the group, or a built-in kind, has already.
fn conflict(object: &Value, all: &[(Entry, Value)]) -> Option<(&'static str, String)> {
    let group = text(&object["spec"], "group");
    let taken = |name: &Value, fields: &[&str]| {
        let others = all.iter().map(|(_, other)| other).filter(|other| {
            text(&other["spec"], "group") == group
                && meta::text(other, "uid") != meta::text(object, "uid")
                && first(other, object)
        });
        others.into_iter().any(|other| {
            let own = &other["spec"]["names"];
            fields.iter().any(|field| {
                own[*field] == *name || own[*field].as_array().is_some_and(|list| list.contains(name))
            })
        })
    };
    let names = &object["spec"]["names"];
    let resources = ["plural", "singular", "shortNames"];
    for (field, reason, against) in [
        ("plural", "PluralConflict", &resources[..]),
        ("singular", "SingularConflict", &resources[..]),
        ("kind", "KindConflict", &["kind", "listKind"][..]),
        ("listKind", "ListKindConflict", &["kind", "listKind"][..]),
    ] {
        if taken(&names[field], against) {
            return Some((reason, format!("{} is already in use", names[field])));
        }
    }
    let mut short = names["shortNames"].as_array().into_iter().flatten();
    let short = short.find(|name| taken(name, &resources))?;
    Some(("ShortNamesConflict", format!("{short} is already in use")))
}

/// Whether a definition was there before another.
fn first(one: &Value, other: &Value) -> bool {
    let age = |object: &Value| {
        (meta::text(object, "creationTimestamp").to_owned(), meta::text(object, "uid").to_owned())
    };
    age(one) < age(other)
}

/// Deletes a definition's objects as far as their finalizers let them go; true when none is left.
async fn emptied(store: &Store, object: &Value) -> bool {
    let spec = &object["spec"];
    let bucket = format!("/registry/{}/{}/", text(spec, "group"), text(&spec["names"], "plural"));
    let Ok(page) = store.list(&bucket, "", None, None, None) else { return false };
    for entry in &page.entries {
        let Ok(mut own) = encode::object(entry) else { continue };
        let held = meta::any(&own, "finalizers");
        if held && meta::deleting(&own) {
            continue;
        }
        if held {
            meta::set(&mut own, "deletionTimestamp", json!(meta::now()));
            meta::set(&mut own, "deletionGracePeriodSeconds", json!(0));
        }
        let draft = encode::draft(&own);
        let change = if held { Change::Put(draft) } else { Change::Delete(draft) };
        let expect = Some(Expect::Revision(entry.mod_revision));
        if let Err(error) = store.write(&bucket, &entry.key, expect, change).await {
            tracing::debug!(%error, key = &*entry.key, "a custom object was not deleted yet");
        }
    }
    page.entries.is_empty()
}
