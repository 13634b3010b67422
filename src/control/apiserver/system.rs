//! Objects the API server itself keeps: the first namespaces, what others need to know to believe whom it
//! believes, and events no longer than they are of use (`pkg/controlplane/controller/systemnamespaces`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::authn::{AuthnError, AuthnFlags};
use super::handlers::meta;
use super::masters::Masters;
use super::server::Api;
use super::{encode, registry};
use crate::api::status::{Result, Status};
use crate::control::store::{Change, Expect, StoreError};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Upstream's interval: who deletes the Service sees it come back.
const EVERY: Duration = Duration::from_secs(10);
/// How often old events are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// How long an event is kept, as upstream's `--event-ttl` has it.
pub const EVENT_TTL: Duration = Duration::from_secs(3600);

/// Makes what is missing and mends what differs, now and every ten seconds.
pub async fn keep(api: Arc<Api>, masters: Masters) {
    let mut interval = tokio::time::interval(EVERY);
    // The first tick is at once, and the start has just ensured what is needed at once.
    interval.tick().await;
    while !api.stopping() {
        let outcome = publish(&api).await;
        interval.tick().await;
        if let Err(error) = outcome.and(ensure(&api, &masters).await) {
            tracing::warn!(%error, "the server's own objects could not be brought up to date");
        }
    }
}

/// Forgets events nobody has added to for `ttl` (`--event-ttl`; upstream lets etcd's leases do it).
pub async fn expire_events(api: Arc<Api>, ttl: Duration) {
    let Some(row) = registry::find("", "v1", "events") else { return };
    loop {
        tokio::time::sleep(EXPIRE_EVERY).await;
        let Ok(page) = api.store.list(&row.bucket, "", None, None, None) else { continue };
        for entry in page.entries {
            let Ok(event) = encode::object(&entry) else { continue };
            if last_seen(&event)
                .is_some_and(|seen| seen.duration_until(Timestamp::now()).unsigned_abs() > ttl)
            {
                let expect = Some(Expect::Revision(entry.mod_revision));
                // One that was just added to, or deleted, is left alone.
                let _ = api
                    .store
                    .write(&row.bucket, &entry.key, expect, Change::Delete(encode::draft(&event)))
                    .await;
            }
        }
    }
}

/// When an event was last added to.
fn last_seen(event: &Value) -> Option<Timestamp> {
    let times = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    times.into_iter().find_map(|time| time.as_str()?.parse().ok())
}

/// Makes what is missing and mends what differs, all at once: on disk it is one write.
pub async fn ensure(api: &Arc<Api>, masters: &Masters) -> Result<()> {
    let namespaces = NAMESPACES.map(|name| {
        let namespace = json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
        create(api, "", "namespaces", namespace)
    });
    let (namespaces, service) = tokio::join!(join_all(namespaces), masters.ensure(api));
    namespaces.into_iter().chain([service]).collect()
}

/// Publishes whom this server believes, so that others can believe the same
/// (`kube-system/extension-apiserver-authentication`), and since when uses of legacy tokens are noted.
pub async fn publish(api: &Arc<Api>) -> Result<()> {
    let day = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let tracking = json!({
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": day},
    });
    let door = json!({
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": api.front_door.0,
    });
    let tracked = create(api, "", "configmaps", tracking);
    let (tracked, published) = tokio::join!(tracked, keep_fields(api, "", "configmaps", door));
    tracked.and(published)
}

/// The authorities and header names this server goes by, as that ConfigMap has them.
pub struct FrontDoor(std::collections::BTreeMap<&'static str, String>);

impl FrontDoor {
    pub fn of(flags: &AuthnFlags) -> std::result::Result<Self, AuthnError> {
        let mut data = std::collections::BTreeMap::new();
        let read = |path: &std::path::Path| {
            std::fs::read_to_string(path)
                .map_err(|source| AuthnError::Read { path: path.display().to_string(), source })
        };
        if let Some(path) = &flags.client_ca_file {
            data.insert("client-ca-file", read(path)?);
        }
        let proxy = &flags.requestheader;
        if let Some(path) = &proxy.requestheader_client_ca_file {
            data.insert("requestheader-client-ca-file", read(path)?);
            for (key, list) in [
                ("requestheader-allowed-names", &proxy.requestheader_allowed_names),
                ("requestheader-extra-headers-prefix", &proxy.requestheader_extra_headers_prefix),
                ("requestheader-group-headers", &proxy.requestheader_group_headers),
                ("requestheader-uid-headers", &proxy.requestheader_uid_headers),
                ("requestheader-username-headers", &proxy.requestheader_username_headers),
            ] {
                data.insert(key, json!(list).to_string());
            }
        }
        Ok(Self(data))
    }
}

/// Creates an object unless there is one of that name.
pub async fn create(api: &Arc<Api>, group: &str, plural: &str, object: Value) -> Result<()> {
    let row = registry::by_name(group, plural).ok_or_else(Status::no_such_path)?;
    let key = row.key(meta::text(&object, "namespace"), meta::text(&object, "name"));
    if api.store.get(&row.bucket, &key).is_some() {
        return Ok(());
    }
    let mut object = object;
    object["apiVersion"] = json!(row.api_version());
    object["kind"] = json!(row.kind);
    (row.strategy.default)(&mut object);
    (row.strategy.prepare_create)(&mut object);
    meta::fill_new(row, &mut object)?;
    write(api, row, &key, Expect::Absent, &object).await
}

/// Creates an object, or gives the one there is these top-level fields again.
pub async fn keep_fields(api: &Arc<Api>, group: &str, plural: &str, wanted: Value) -> Result<()> {
    let row = registry::by_name(group, plural).ok_or_else(Status::no_such_path)?;
    let key = row.key(meta::text(&wanted, "namespace"), meta::text(&wanted, "name"));
    let Some(entry) = api.store.get(&row.bucket, &key) else {
        return create(api, group, plural, wanted).await;
    };
    let old = encode::object(&entry)?;
    let mut object = old.clone();
    for (field, value) in wanted.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata") {
        object[field] = value.clone();
    }
    if object == old {
        return Ok(());
    }
    write(api, row, &key, Expect::Revision(entry.mod_revision), &object).await
}

async fn write(
    api: &Arc<Api>,
    row: &registry::Resource,
    key: &str,
    expect: Expect,
    object: &Value,
) -> Result<()> {
    match api.store.write(&row.bucket, key, Some(expect), Change::Put(encode::draft(object))).await {
        // Somebody else was faster; the next round looks again.
        Ok(_) | Err(StoreError::Exists | StoreError::Modified { .. } | StoreError::Missing) => Ok(()),
        Err(error) => Err(Status::internal(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_old_as_its_last_occurrence() {
        let event = json!({"lastTimestamp": "2026-01-02T00:00:00Z", "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(last_seen(&event), "2026-01-02T00:00:00Z".parse().ok());
        assert_eq!(last_seen(&json!({})), None);
    }
}
