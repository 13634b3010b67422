//! ResourceQuota: what a namespace uses, counted anew whenever that may have changed
//! (`pkg/controller/resourcequota`). Admission only adds; what went is noticed here.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use kube::api::{ListParams, PostParams};
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::{Api, Resource};
use serde::Serialize;
use serde_json::Value;

use super::discovered::{self, Discovered};
use super::queue::{Next, Queue};
use super::workloads::pods;
use super::world::{Actor, World};
use crate::api::quantity::Quantity;
use crate::api::usage::{self, Usage};
use crate::client::informer::key_of;

/// How often kinds that nobody here watches are counted again.
const RECOUNT: Duration = Duration::from_secs(5);

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.late.quotas.on_change(move |old, new| {
        // Its own status is what this writes.
        let changed =
            old.map(|old| &old.spec) != new.map(|new| &new.spec) || new.is_some_and(|new| is_behind(new));
        if let Some(quota) = new.filter(|_| changed) {
            fed.add(key_of(&**quota));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let ended = new.is_none_or(|pod| pods::is_finished(pod));
        if ended || old.is_none() {
            feed(&fed, &seen, old.or(new).and_then(|pod| pod.metadata.namespace.as_deref()));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.services.on_change(move |old, new| {
        feed(&fed, &seen, old.or(new).and_then(|one| one.metadata.namespace.as_deref()));
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.late.claims.on_change(move |old, new| {
        if old.is_none() || new.is_none() {
            feed(&fed, &seen, old.or(new).and_then(|one| one.metadata.namespace.as_deref()));
        }
    });
    let actor = world.actor("resourcequota-controller", "resourcequota-controller");
    let world = world.clone();
    Box::pin(async move {
        world.late.quotas.synced().await;
        world.late.claims.synced().await;
        world.pods.synced().await;
        queue.work("resourcequota", 2, |key| sync(&world, &actor, key)).await;
    })
}

fn feed(queue: &Queue, world: &World, namespace: Option<&str>) {
    if let Some(namespace) = namespace {
        world.late.quotas.in_namespace(namespace).iter().for_each(|quota| queue.add(key_of(&**quota)));
    }
}

fn is_behind(quota: &ResourceQuota) -> bool {
    let hard = |map: Option<&BTreeMap<String, Text>>| map.cloned().unwrap_or_default();
    hard(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
        != hard(quota.status.as_ref().and_then(|status| status.hard.as_ref()))
}

/// What objects of one kind use of a quota.
fn count<K: Serialize>(quota: &Value, resource: &str, all: &[Rc<K>]) -> Usage {
    let mut sum = Usage::new();
    for object in all {
        let object = serde_json::to_value(&**object).unwrap_or_default();
        if usage::is_in_scope(quota, resource, &object) {
            usage::add(&mut sum, &usage::of("", resource, &object));
        }
    }
    sum
}

async fn sync(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(quota) = world.late.quotas.get(&key) else { return Ok(Next::Done) };
    let namespace = quota.metadata.namespace.clone().unwrap_or_default();
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let as_value = serde_json::to_value(&*quota).unwrap_or_default();
    let mut used = Usage::new();
    usage::add(&mut used, &count::<Pod>(&as_value, "pods", &world.pods.in_namespace(&namespace)));
    usage::add(&mut used, &count(&as_value, "services", &world.services.in_namespace(&namespace)));
    let claims = world.late.claims.in_namespace(&namespace);
    usage::add(&mut used, &count(&as_value, "persistentvolumeclaims", &claims));
    let others: Vec<String> = hard.keys().filter_map(|name| other_kind(name)).collect();
    if !others.is_empty() {
        let kinds = discovered::kinds(&actor.client).await?;
        for name in &others {
            let many = count_of(actor, &kinds, name, &namespace).await?;
            used.insert(format!("count/{name}"), Quantity::whole(many));
            if !name.contains('.') {
                used.insert(name.clone(), Quantity::whole(many));
            }
        }
    }
    let amount = |name: &String| Text(used.get(name).copied().unwrap_or(Quantity::whole(0)).to_string());
    let status = ResourceQuotaStatus {
        used: Some(hard.keys().map(|name| (name.clone(), amount(name))).collect()),
        hard: Some(hard),
    };
    write_status(world, actor, &quota, status).await?;
    Ok(if others.is_empty() { Next::Done } else { Next::After(RECOUNT) })
}

/// The kind a name counts, if no watch here knows how many there are.
fn other_kind(name: &str) -> Option<String> {
    let kind = name.strip_prefix("count/").unwrap_or(name);
    let counted = name.starts_with("count/")
        || matches!(kind, "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas");
    (counted && !matches!(kind, "pods" | "services" | "persistentvolumeclaims")).then(|| kind.to_owned())
}

async fn count_of(
    actor: &Actor,
    kinds: &[Discovered],
    name: &str,
    namespace: &str,
) -> Result<i64, kube::Error> {
    let (plural, group) = name.split_once('.').unwrap_or((name, ""));
    let kind = kinds.iter().find(|kind| {
        kind.resource.plural == plural && kind.resource.group == group && kind.namespaced && kind.can("list")
    });
    let Some(kind) = kind else { return Ok(0) };
    let api: Api<DynamicObject> = Api::namespaced_with(actor.client.clone(), namespace, &kind.resource);
    let list: kube::core::ObjectList<PartialObjectMeta<DynamicObject>> =
        api.list_metadata(&ListParams::default()).await?;
    Ok(i64::try_from(list.items.len()).unwrap_or(i64::MAX))
}

async fn write_status(
    world: &World,
    actor: &Actor,
    quota: &ResourceQuota,
    status: ResourceQuotaStatus,
) -> Result<(), kube::Error> {
    if quota.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut changed = quota.clone();
    changed.status = Some(status);
    let api: Api<ResourceQuota> =
        Api::namespaced(actor.client.clone(), quota.metadata.namespace.as_deref().unwrap_or_default());
    match api
        .replace_status(quota.meta().name.as_deref().unwrap_or_default(), &PostParams::default(), &changed)
        .await
    {
        Ok(written) => world.late.quotas.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
