//! Disruption: how many pods of a budget may be evicted now (`pkg/controller/disruption`).
//!
//! How many there should be is asked of the pods' owners: Deployment, ReplicaSet, ReplicationController,
//! StatefulSet. Left out: owners of other kinds, by their scale.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use kube::core::{Selector, SelectorExt};

use super::queue::{Next, Queue};
use super::workloads::deployment::share;
use super::workloads::{ownership, pods};
use super::world::{Actor, World};
use crate::client::informer::{key, key_of};

/// An eviction that was allowed and whose pod is still there after this long did not happen.
const FORGET: Duration = Duration::from_secs(120);

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.late.budgets.on_change(move |_, new| {
        if let Some(budget) = new {
            fed.add(key_of(&**budget));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let both = [old, new].into_iter().flatten();
        for pod in both {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let all = seen.late.budgets.in_namespace(namespace);
            all.iter().filter(|budget| selects(budget, pod)).for_each(|budget| fed.add(key_of(&**budget)));
        }
    });
    // A size somebody changed changes what is expected.
    let (fed, seen) = (queue.clone(), world.clone());
    world
        .deployments
        .on_change(move |_, new| feed(&fed, &seen, new.and_then(|one| one.metadata.namespace.as_deref())));
    let (fed, seen) = (queue.clone(), world.clone());
    world.late.stateful_sets.on_change(move |_, new| {
        feed(&fed, &seen, new.and_then(|one| one.metadata.namespace.as_deref()));
    });
    let actor = world.actor("disruption-controller", "controllermanager");
    let world = world.clone();
    Box::pin(async move {
        world.late.budgets.synced().await;
        world.late.stateful_sets.synced().await;
        world.late.replication_controllers.synced().await;
        world.pods.synced().await;
        queue.work("disruption", 4, |key| sync(&world, &actor, key)).await;
    })
}

fn feed(queue: &Queue, world: &World, namespace: Option<&str>) {
    if let Some(namespace) = namespace {
        world.late.budgets.in_namespace(namespace).iter().for_each(|budget| queue.add(key_of(&**budget)));
    }
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    // An empty selector is every pod of the namespace, none at all is no pod.
    let Some(wanted) = budget.spec.as_ref().and_then(|spec| spec.selector.clone()) else { return false };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    Selector::try_from(wanted).is_ok_and(|selector| selector.matches(&labels))
}

/// The uid of the owner whose size counts, and that size.
fn wanted_by_owner(world: &World, pod: &Pod) -> Option<(String, i32)> {
    let (owner, namespace) = (ownership::controller_of(&pod.metadata)?, pod.metadata.namespace.as_deref());
    let place = key(namespace, &owner.name);
    let size = |replicas: Option<i32>| Some((owner.uid.clone(), replicas.unwrap_or(1)));
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let set = world.replica_sets.get(&place)?;
            let above = ownership::controller_of(&set.metadata).filter(|above| above.kind == "Deployment");
            match above.and_then(|above| world.deployments.get(&key(namespace, &above.name))) {
                Some(deployment) => {
                    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
                    Some((deployment.metadata.uid.clone().unwrap_or_default(), replicas))
                }
                None => size(set.spec.as_ref().and_then(|spec| spec.replicas)),
            }
        }
        "StatefulSet" => {
            size(world.late.stateful_sets.get(&place)?.spec.as_ref().and_then(|spec| spec.replicas))
        }
        "ReplicationController" => {
            size(world.late.replication_controllers.get(&place)?.spec.as_ref().and_then(|spec| spec.replicas))
        }
        _ => None,
    }
}

/// How many pods there should be, and how many of them healthy.
fn demand(world: &World, budget: &PodDisruptionBudget, mine: &[Rc<Pod>]) -> (i32, i32) {
    let spec = budget.spec.clone().unwrap_or_default();
    let here = i32::try_from(mine.len()).unwrap_or(i32::MAX);
    let by_owners = || {
        let sizes: BTreeMap<String, i32> =
            mine.iter().filter_map(|pod| wanted_by_owner(world, pod)).collect();
        let bare = mine.iter().filter(|pod| wanted_by_owner(world, pod).is_none()).count();
        sizes.values().sum::<i32>() + i32::try_from(bare).unwrap_or(0)
    };
    match (spec.max_unavailable, spec.min_available) {
        (Some(most), _) => {
            let expected = by_owners();
            (expected, (expected - share(&most, expected, true)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (here, least),
        (None, Some(least)) => {
            let expected = by_owners();
            (expected, share(&least, expected, true))
        }
        // A budget that says nothing allows nothing.
        (None, None) => (0, 0),
    }
}

async fn sync(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(budget) = world.late.budgets.get(&key) else { return Ok(Next::Done) };
    let mut mine = world.pods.in_namespace(budget.metadata.namespace.as_deref().unwrap_or_default());
    mine.retain(|pod| selects(&budget, pod) && !pods::is_finished(pod));
    let now = Timestamp::now();
    let old = budget.status.clone().unwrap_or_default();
    // Those whose eviction was allowed count as gone until they are.
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    disrupted.retain(|name, since| {
        let there = mine.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
        let young = since.0.duration_until(now).unsigned_abs() < FORGET;
        young && there.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
    });
    let healthy = mine.iter().filter(|pod| {
        let leaving = pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
        pods::is_ready(pod) && pod.metadata.deletion_timestamp.is_none() && !leaving
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let (expected, desired) = demand(world, &budget, &mine);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let again = (!disrupted.is_empty()).then_some(FORGET);
    let status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|all| !all.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(vec![condition(&old, allowed, budget.metadata.generation, now)]),
    };
    write_status(world, actor, &budget, status).await?;
    Ok(again.map_or(Next::Done, Next::After))
}

fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: i32,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let known =
        old.conditions.iter().flatten().find(|one| one.type_ == "DisruptionAllowed" && one.status == status);
    Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: known
            .map_or(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)), |one| {
                one.last_transition_time.clone()
            }),
    }
}

async fn write_status(
    world: &World,
    actor: &Actor,
    budget: &PodDisruptionBudget,
    status: PodDisruptionBudgetStatus,
) -> Result<(), kube::Error> {
    if budget.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut changed = budget.clone();
    changed.status = Some(status);
    let api: Api<PodDisruptionBudget> =
        Api::namespaced(actor.client.clone(), budget.metadata.namespace.as_deref().unwrap_or_default());
    let name = budget.metadata.name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), &changed).await {
        Ok(written) => world.late.budgets.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
