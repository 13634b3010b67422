//! StatefulSet: pods with a name, a place in the order and claims of their own (`pkg/controller/statefulset`).
//!
//! Ordered sets take one step at a time, from the lowest ordinal up and back down; parallel ones take all
//! steps at once. Updates go from the highest ordinal down to the partition.

mod identity;
mod plan;

use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, join_all};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::{ownership, pods, revisions};
use crate::client::informer::{key, key_of};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};
use plan::{Revisions, Steps};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.late.stateful_sets.on_change(move |_, new| {
        if let Some(set) = new {
            fed.add(key_of(&**set));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let both = old.into_iter().chain(new);
        both.filter_map(|pod| ownership::controller_key(&pod.metadata, "StatefulSet"))
            .for_each(|key| fed.add(key));
        let orphan = new.filter(|pod| ownership::controller_of(&pod.metadata).is_none() && old.is_none());
        if let Some(orphan) = orphan {
            let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
            seen.late.stateful_sets.in_namespace(namespace).iter().for_each(|set| fed.add(key_of(&**set)));
        }
    });
    let actor = world.actor("statefulset-controller", "statefulset-controller");
    let world = world.clone();
    Box::pin(async move {
        world.late.stateful_sets.synced().await;
        world.late.revisions.synced().await;
        world.late.claims.synced().await;
        world.pods.synced().await;
        queue.work("statefulset", 5, |key| sync(&world, &actor, key)).await;
    })
}

fn owned(world: &World, set: &StatefulSet) -> Vec<Rc<Pod>> {
    let mut all = world.pods.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| {
        ownership::is_controlled_by(&pod.metadata, set.metadata.uid.as_deref())
            && identity::ordinal(set, pod).is_some()
    });
    all
}

async fn sync(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(set) = world.late.stateful_sets.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    ownership::claim(&actor.client, &world.pods, &*set, &spec.selector).await?;
    let old = set.status.clone().unwrap_or_default();
    let update = revisions::ensure(world, actor, &*set, &spec.template, old.collision_count).await?;
    let update_name = update.metadata.name.clone().unwrap_or_default();
    let current_name =
        old.current_revision.clone().filter(|name| !name.is_empty()).unwrap_or(update_name.clone());
    let current = current_template(world, &set, &current_name, &update);
    let names = Revisions { current: current_name, update: update_name };
    let steps = plan::steps(&set, &names, &owned(world, &set), Timestamp::now());
    let outcome = take(world, actor, &set, &names, (&current, &spec.template), &steps).await;
    let mine = owned(world, &set);
    let (status, live) = status(&set, names, &mine);
    write_status(world, actor, &set, status).await?;
    revisions::truncate(world, actor, &set.metadata, &live, spec.revision_history_limit).await?;
    outcome?;
    let waits = mine
        .iter()
        .filter_map(|pod| pods::available_in(pod, spec.min_ready_seconds.unwrap_or(0), Timestamp::now()));
    Ok(waits.filter(|wait| !wait.is_zero()).min().map_or(Next::Done, Next::After))
}

/// The template that pods below the partition keep.
fn current_template(
    world: &World,
    set: &StatefulSet,
    name: &str,
    update: &ControllerRevision,
) -> PodTemplateSpec {
    let place = key(set.metadata.namespace.as_deref(), name);
    let known = world.late.revisions.get(&place);
    let template = known.as_deref().and_then(revisions::template).or_else(|| revisions::template(update));
    template.unwrap_or_default()
}

async fn take(
    world: &World,
    actor: &Actor,
    set: &StatefulSet,
    names: &Revisions,
    (current, update): (&PodTemplateSpec, &PodTemplateSpec),
    steps: &Steps,
) -> Result<(), kube::Error> {
    for pod in &steps.delete {
        pods::delete(world, actor, set, pod).await?;
    }
    for ordinal in &steps.condemned_claims {
        drop_claims(world, actor, set, *ordinal).await?;
    }
    let create = steps.create.iter().map(|(ordinal, updated)| async move {
        let (template, revision) = if *updated { (update, &names.update) } else { (current, &names.current) };
        for claim in identity::claims(set, *ordinal) {
            ensure_claim(world, actor, set, &claim).await?;
        }
        let pod = identity::pod(set, *ordinal, template, revision);
        match create(world, actor, set, &pod).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other,
        }
    });
    join_all(create).await.into_iter().collect::<Result<Vec<()>, _>>().map(drop)
}

async fn create(world: &World, actor: &Actor, set: &StatefulSet, pod: &Pod) -> Result<(), kube::Error> {
    let (namespace, name) = pods::place(pod);
    let owner = set.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(actor.client.clone(), namespace);
    match api.create(&PostParams::default(), pod).await {
        Ok(made) => {
            let said = format!("create Pod {name} in StatefulSet {owner} successful");
            actor.normal(set, "SuccessfulCreate", &said);
            world.pods.learn(made);
            Ok(())
        }
        Err(error) => {
            if !matches!(&error, kube::Error::Api(status) if status.code == 409) {
                let said =
                    format!("create Pod {name} in StatefulSet {owner} failed error: {}", pods::text(&error));
                actor.warning(set, "FailedCreate", &said);
            }
            Err(error)
        }
    }
}

async fn ensure_claim(
    world: &World,
    actor: &Actor,
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
) -> Result<(), kube::Error> {
    if world.late.claims.get(&key_of(claim)).is_some() {
        return Ok(());
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let owner = set.metadata.name.as_deref().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> =
        Api::namespaced(actor.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
    match api.create(&PostParams::default(), claim).await {
        Ok(made) => {
            let pod = name.rsplit('-').next().unwrap_or_default();
            let said = format!("create Claim {name} Pod {owner}-{pod} in StatefulSet {owner} success");
            actor.normal(set, "SuccessfulCreate", &said);
            world.late.claims.learn(made);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => {
            let said =
                format!("create Claim {name} in StatefulSet {owner} failed error: {}", pods::text(&error));
            actor.warning(set, "FailedCreate", &said);
            Err(error)
        }
    }
}

/// `persistentVolumeClaimRetentionPolicy.whenScaled: Delete`: a claim goes with its pod.
async fn drop_claims(
    world: &World,
    actor: &Actor,
    set: &StatefulSet,
    ordinal: i32,
) -> Result<(), kube::Error> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(actor.client.clone(), namespace);
    for claim in identity::claims(set, ordinal) {
        if world.late.claims.get(&key_of(&claim)).is_none() {
            continue;
        }
        match api.delete(claim.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// The status these pods make, and the revisions somebody lives by.
fn status(set: &StatefulSet, names: Revisions, mine: &[Rc<Pod>]) -> (StatefulSetStatus, Vec<String>) {
    let spec = set.spec.clone().unwrap_or_default();
    let (min_ready, now) = (spec.min_ready_seconds.unwrap_or(0), Timestamp::now());
    let count = |fits: &dyn Fn(&Pod) -> bool| {
        i32::try_from(mine.iter().filter(|pod| fits(pod)).count()).unwrap_or(i32::MAX)
    };
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    let live = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    let of = |pod: &Pod, revision: &str| live(pod) && identity::revision(pod) == Some(revision);
    let (current, updated) = (count(&|pod| of(pod, &names.current)), count(&|pod| of(pod, &names.update)));
    let mut status = StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: some(count(&|pod| live(pod) && pods::is_ready(pod))),
        available_replicas: Some(count(&|pod| live(pod) && pods::is_available(pod, min_ready, now))),
        current_replicas: some(current),
        updated_replicas: some(updated),
        observed_generation: set.metadata.generation,
        collision_count: set.status.as_ref().and_then(|status| status.collision_count).or(Some(0)),
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        current_revision: Some(names.current.clone()),
        update_revision: Some(names.update.clone()),
    };
    // When every pod is updated and serves, the update is what is current.
    let wanted = spec.replicas.unwrap_or(1);
    if updated == wanted && status.ready_replicas.unwrap_or(0) == wanted && status.replicas == wanted {
        status.current_revision = Some(names.update.clone());
        status.current_replicas = some(updated);
    }
    let mut lived: Vec<String> =
        mine.iter().filter_map(|pod| identity::revision(pod).map(str::to_owned)).collect();
    lived.extend(status.current_revision.clone());
    lived.push(names.update);
    (status, lived)
}

async fn write_status(
    world: &World,
    actor: &Actor,
    set: &StatefulSet,
    status: StatefulSetStatus,
) -> Result<(), kube::Error> {
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut changed = set.clone();
    changed.status = Some(status);
    let api: Api<StatefulSet> =
        Api::namespaced(actor.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
    let name = set.metadata.name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), &changed).await {
        Ok(written) => world.late.stateful_sets.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
