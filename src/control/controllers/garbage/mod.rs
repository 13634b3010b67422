//! Garbage collection: objects whose owners are gone go too.
//!
//! A graph of every object's owners is kept from metadata watches (kinds the role watches anyway are
//! read from there). An object goes when all its owners are gone; an owner deleted in the foreground
//! waits for dependents that block it; one deleted with `orphan` first frees its dependents. Before
//! anything is deleted the API server is asked whether the owner is really gone. Events and leases
//! are not followed, as upstream does for events; new kinds are followed as definitions bring them.

mod graph;
mod rest;

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::Notify;
use tracing::info;

use super::queue::{Next, Queue};
use super::world::{Actor, World};
use crate::client::informer::Informer;
use graph::{Graph, ORPHAN, Object, Verdict, is_of};
use rest::Rest;

/// What brings or takes kinds.
const BRING_KINDS: &[&str] = &["customresourcedefinitions", "apiservices"];

/// The loop's shared state.
#[derive(Clone, Default)]
struct Collector {
    graph: Rc<RefCell<Graph>>,
    queue: Queue,
    /// Told of every change that may bring or take kinds.
    definitions: Rc<Notify>,
}

impl Collector {
    /// Follows one kind through an informer.
    fn follow<K: Resource + 'static>(&self, informer: &Informer<K>, resource: ApiResource) {
        let resource = Rc::new(resource);
        self.graph.borrow_mut().resources.push(resource.clone());
        let this = self.clone();
        let known = resource.clone();
        informer.on_change(move |old, new| {
            this.changed(&known, old.map(|one| one.meta()), new.map(|one| one.meta()))
        });
        // What is there already.
        for object in informer.all() {
            self.changed(&resource, None, Some(object.meta()));
        }
    }

    /// Judges what has owners of this kind.
    fn judge_again(&self, kind: &ApiResource) {
        let graph = self.graph.borrow();
        let owned = |object: &Object| object.owners.iter().any(|owner| is_of(owner, kind));
        let uids = graph.objects.iter().filter(|(_, object)| owned(object)).map(|(uid, _)| uid.clone());
        uids.for_each(|uid| self.queue.add(uid));
    }

    fn changed(&self, resource: &Rc<ApiResource>, old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) {
        if BRING_KINDS.contains(&resource.plural.as_str()) {
            self.definitions.notify_one();
        }
        let uid_of = |meta: &ObjectMeta| meta.uid.clone().unwrap_or_default();
        // Deleted, or deleted and made again under the same name.
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.uid != old.uid)) {
            let uid = uid_of(old);
            self.graph.borrow_mut().remove(&uid);
            let graph = self.graph.borrow();
            graph.dependents_of(&uid).into_iter().for_each(|dependent| self.queue.add(dependent));
            // An owner in the foreground may wait for just this one.
            old.owner_references.iter().flatten().for_each(|owner| self.queue.add(owner.uid.clone()));
        }
        let Some(new) = new else { return };
        let uid = uid_of(new);
        let object = Object {
            resource: resource.clone(),
            namespace: new.namespace.clone(),
            name: new.name.clone().unwrap_or_default(),
            owners: new.owner_references.clone().unwrap_or_default(),
            finalizers: new.finalizers.clone().unwrap_or_default(),
            leaving: new.deletion_timestamp.is_some(),
        };
        let matters = object.leaving || !object.owners.is_empty();
        self.graph.borrow_mut().insert(&uid, object);
        if matters {
            self.queue.add(uid);
        }
    }
}

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let collector = Collector::default();
    let shared = follow_shared(world, &collector);
    let actor = world.actor("generic-garbage-collector", "garbage-collector-controller");
    let world = world.clone();
    Box::pin(async move {
        // The rest of the role starts first: nothing is urgent here.
        world.synced().await;
        let mut rest = Rest::new(&world, &actor, &collector, shared);
        rest.begin().await;
        let Collector { graph, queue, .. } = collector;
        let work = queue.work("garbage-collector", 16, |uid| collect(&actor, &graph, uid));
        tokio::join!(work, rest.go_on());
    })
}

/// Kinds the role watches whole, for all namespaces.
fn follow_shared(world: &World, collector: &Collector) -> Vec<String> {
    fn resource<K: Resource<DynamicType = ()>>() -> ApiResource {
        ApiResource::erase::<K>(&())
    }
    macro_rules! shared {
        ($($informer:ident: $kind:ty),+ $(,)?) => {{
            $(collector.follow(&world.$informer, resource::<$kind>());)+
            vec![$({
                let ApiResource { plural, group, .. } = resource::<$kind>();
                format!("{plural}.{group}")
            }),+]
        }};
    }
    use k8s_openapi::api::{
        apps::v1 as apps, certificates::v1 as certificates, core::v1 as core, discovery::v1 as discovery,
    };
    shared!(
        nodes: core::Node,
        pods: core::Pod,
        namespaces: core::Namespace,
        service_accounts: core::ServiceAccount,
        services: core::Service,
        endpoints: core::Endpoints,
        slices: discovery::EndpointSlice,
        replica_sets: apps::ReplicaSet,
        deployments: apps::Deployment,
        daemon_sets: apps::DaemonSet,
        csrs: certificates::CertificateSigningRequest,
    )
}

fn api_for(client: &Client, object: &Object) -> Api<DynamicObject> {
    match &object.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &*object.resource),
        None => Api::all_with(client.clone(), &*object.resource),
    }
}

async fn collect(actor: &Actor, graph: &RefCell<Graph>, uid: String) -> Result<Next, kube::Error> {
    let Some(object) = graph.borrow().objects.get(&uid).cloned() else { return Ok(Next::Done) };
    let verdict = graph.borrow().judge(&uid);
    match verdict {
        Verdict::Nothing => Ok(Next::Done),
        Verdict::Verify(owners) => {
            for owner in &owners {
                if exists(actor, graph, &object, owner).await? {
                    // The watch has not shown it yet, or it is of a kind nobody watches.
                    return Ok(Next::Done);
                }
            }
            delete(actor, &object, &uid, PropagationPolicy::Background).await
        }
        Verdict::Delete(policy) => delete(actor, &object, &uid, policy).await,
        Verdict::WaitFor(dependents) => {
            for dependent in dependents {
                let known = graph.borrow().objects.get(&dependent).cloned();
                if let Some(known) = known.filter(|known| !known.leaving) {
                    delete(actor, &known, &dependent, PropagationPolicy::Foreground).await?;
                }
            }
            Ok(Next::Soon)
        }
        Verdict::DropFinalizer(finalizer) => drop_finalizer(actor, &object, &uid, finalizer).await,
        Verdict::FreeDependents(dependents) => {
            for dependent in dependents {
                let known = graph.borrow().objects.get(&dependent).cloned();
                if let Some(known) = known {
                    free(actor, &known, &dependent, &uid).await?;
                }
            }
            drop_finalizer(actor, &object, &uid, ORPHAN).await
        }
    }
}

/// Asks the API server itself whether an owner is there.
async fn exists(
    actor: &Actor,
    graph: &RefCell<Graph>,
    object: &Object,
    owner: &OwnerReference,
) -> Result<bool, kube::Error> {
    let Some(resource) = graph.borrow().resource(owner) else { return Ok(true) };
    let cluster_wide =
        graph.borrow().objects.values().any(|one| one.resource == resource && one.namespace.is_none());
    let api: Api<PartialObjectMeta<DynamicObject>> = match (&object.namespace, cluster_wide) {
        (Some(namespace), false) => Api::namespaced_with(actor.client.clone(), namespace, &*resource),
        _ => Api::all_with(actor.client.clone(), &*resource),
    };
    let found = api.get_opt(&owner.name).await?;
    Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(&owner.uid)))
}

async fn delete(
    actor: &Actor,
    object: &Object,
    uid: &str,
    policy: PropagationPolicy,
) -> Result<Next, kube::Error> {
    let api = api_for(&actor.client, object);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    };
    match api.delete(&object.name, &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        other => {
            other?;
            info!(
                kind = object.resource.kind,
                namespace = object.namespace,
                name = object.name,
                "deleted with its owner"
            );
        }
    }
    Ok(Next::Done)
}

async fn drop_finalizer(
    actor: &Actor,
    object: &Object,
    uid: &str,
    finalizer: &str,
) -> Result<Next, kube::Error> {
    let left: Vec<&String> = object.finalizers.iter().filter(|one| *one != finalizer).collect();
    patch(actor, object, &json!({"metadata": {"uid": uid, "finalizers": left}})).await
}

/// Takes one owner out of an object's references.
async fn free(actor: &Actor, object: &Object, uid: &str, owner: &str) -> Result<Next, kube::Error> {
    let left: Vec<&OwnerReference> = object.owners.iter().filter(|one| one.uid != owner).collect();
    patch(actor, object, &json!({"metadata": {"uid": uid, "ownerReferences": left}})).await
}

async fn patch(actor: &Actor, object: &Object, change: &serde_json::Value) -> Result<Next, kube::Error> {
    let api = api_for(&actor.client, object);
    match api.patch(&object.name, &PatchParams::default(), &Patch::Merge(change)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Done),
        other => other.map(|_| Next::Done),
    }
}
