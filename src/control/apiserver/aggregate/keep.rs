//! Keeps the APIServices: one for every group version served here, and of others whether they answer
//! (`controllers/autoregister`, `crdregistration`, `controllers/status`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{GROUP, PLURAL, Remote, health, priority, remotes, replace};
use crate::control::apiserver::custom;
use crate::control::apiserver::encode;
use crate::control::apiserver::handlers::meta;
use crate::control::apiserver::registry::{self, Resource};
use crate::control::apiserver::server::Api;
use crate::control::store::{Change, Entry, Expect};
use crate::net::Identity;

/// Says who looks after one: `onstart` for what is built in, `true` for users' own kinds.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// How often others are looked at: all the time one does not answer, now and then otherwise.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(10);

fn row() -> &'static Resource {
    registry::by_name(GROUP, PLURAL).expect("the table has APIServices")
}

fn all(api: &Api) -> Vec<(Entry, Value)> {
    let Ok(page) = api.store.list(&row().bucket, "", None, None, None) else { return Vec::new() };
    page.entries
        .into_iter()
        .filter_map(|entry| encode::object(&entry).ok().map(|object| (entry, object)))
        .collect()
}

/// Follows APIServices and definitions until the store closes.
pub async fn keep(api: Arc<Api>, identity: Option<Identity>) {
    let mut defined = custom::served::changes();
    register(&api, &registry::all().iter().collect::<Vec<_>>(), "onstart").await;
    loop {
        let from = api.store.revision();
        defined.mark_unchanged();
        let own = custom::rows();
        register(&api, &own, "true").await;
        forget(&api, &own).await;
        let waiting = look(&api, identity.as_ref()).await;
        let Ok(mut watch) = api.store.watch(&row().bucket, from) else {
            tokio::time::sleep(SOON).await;
            continue;
        };
        let others = remotes();
        let pause = if waiting { SOON } else { LATER };
        tokio::select! {
            // What this round wrote itself comes here too: one more round that changes nothing.
            event = watch.next() => if event.is_err() { tokio::time::sleep(SOON).await },
            changed = defined.changed() => if changed.is_err() { tokio::time::sleep(SOON).await },
            () = tokio::time::sleep(pause), if !others.is_empty() => {}
        }
    }
}

/// Makes the APIServices of these rows where there is none.
async fn register(api: &Api, rows: &[&'static Resource], managed: &str) {
    let versions: BTreeSet<(&str, &str)> = rows.iter().map(|row| (row.group, row.version)).collect();
    let writes = versions.into_iter().filter_map(|(group, version)| {
        let name = format!("{version}.{group}");
        api.store.get(&row().bucket, &name).is_none().then(|| {
                let draft = encode::draft(&local(&name, group, version, managed));
                async move {
                    api.store.write(&row().bucket, &name, Some(Expect::Absent), Change::Put(draft)).await
                }
            })
    });
    for error in join_all(writes).await.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "an APIService was not made");
    }
}

fn local(name: &str, group: &str, version: &str, managed: &str) -> Value {
    let (of_group, of_version) = priority::of(group, version);
    json!({
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": name, "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": meta::now(),
            "labels": {MANAGED: managed}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version},
        "status": {"conditions": [available("True", "Local", "Local APIServices are always available")]},
    })
}

fn available(status: &str, reason: &str, message: &str) -> Value {
    json!({"type": "Available", "status": status, "lastTransitionTime": meta::now(), "reason": reason, "message": message})
}

/// Takes the APIServices of users' kinds away that are gone.
async fn forget(api: &Api, rows: &[&'static Resource]) {
    for (entry, object) in all(api) {
        let served = rows.iter().any(|row| *entry.key == *format!("{}.{}", row.version, row.group));
        if object["metadata"]["labels"][MANAGED] == "true" && !served {
            write(api, &entry, Change::Delete(encode::draft(&object))).await;
        }
    }
}

/// A lost race is looked at again: the other's write wakes the loop.
async fn write(api: &Api, entry: &Entry, change: Change) {
    let expect = Some(Expect::Revision(entry.mod_revision));
    if let Err(error) = api.store.write(&row().bucket, &entry.key, expect, change).await {
        tracing::debug!(%error, name = &*entry.key, "an APIService was not written");
    }
}

/// Looks at every server that is not this one; true while one does not answer.
async fn look(api: &Api, identity: Option<&Identity>) -> bool {
    let known = remotes();
    let mut served = Vec::new();
    let mut waiting = false;
    for (entry, object) in all(api) {
        if !object["spec"]["service"].is_object() {
            local_again(api, &entry, object).await;
            continue;
        }
        let mut remote = Remote::of(&object, identity, Value::Null);
        let found = health::look(api, &remote, identity).await;
        remote.available = found.status == "True";
        waiting |= !remote.available;
        let before = known.iter().find(|old| (&old.group, &old.version) == (&remote.group, &remote.version));
        remote.resources =
            found.resources.or_else(|| Some(before?.resources.clone())).unwrap_or_else(|| json!({}));
        remote.described = found.described.or_else(|| before?.described.clone());
        served.push(Arc::new(remote));
        tell(api, &entry, object, available(found.status, found.reason, &found.message)).await;
    }
    replace(served);
    waiting
}

/// One that names no service is always available.
async fn local_again(api: &Api, entry: &Entry, object: Value) {
    tell(api, entry, object, available("True", "Local", "Local APIServices are always available")).await;
}

/// Writes the condition, if it says anything new.
async fn tell(api: &Api, entry: &Entry, mut object: Value, mut condition: Value) {
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter_mut().find(|one| one["type"] == "Available") {
        Some(own) => {
            if own["status"] == condition["status"] {
                condition["lastTransitionTime"] = own["lastTransitionTime"].clone();
            }
            if *own == condition {
                return;
            }
            *own = condition;
        }
        None => conditions.push(condition),
    }
    object["status"] = json!({"conditions": conditions});
    write(api, entry, Change::Put(encode::draft(&object))).await;
}
