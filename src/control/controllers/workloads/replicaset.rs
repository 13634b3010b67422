//! ReplicaSet: as many pods of a template as asked for, no more and no less.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, join_all};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tracing::info;

use super::{ownership, pods};
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

/// At most this many pods are made or deleted in one go.
const BURST: usize = 500;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.replica_sets.on_change(move |_, new| {
        if let Some(set) = new {
            fed.add(key_of(&**set));
        }
    });
    watch_pods(world, &queue);
    let actor = world.actor("replicaset-controller", "replicaset-controller");
    let world = world.clone();
    Box::pin(async move {
        world.replica_sets.synced().await;
        world.pods.synced().await;
        queue.work("replicaset", 8, |key| sync(&world, &actor, key)).await;
    })
}

fn watch_pods(world: &Rc<World>, queue: &Queue) {
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let owners = old
            .into_iter()
            .chain(new)
            .filter_map(|pod| ownership::controller_key(&pod.metadata, "ReplicaSet"));
        owners.for_each(|key| fed.add(key));
        // An orphan may fit a set that would adopt it.
        let Some(orphan) = new.filter(|pod| ownership::controller_of(&pod.metadata).is_none()) else {
            return;
        };
        if old.is_some_and(|old| {
            old.metadata.labels == orphan.metadata.labels && ownership::controller_of(&old.metadata).is_none()
        }) {
            return;
        }
        let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
        seen.replica_sets.in_namespace(namespace).iter().for_each(|set| fed.add(key_of(&**set)));
    });
}

async fn sync(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(set) = world.replica_sets.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    let mine = ownership::claim(&actor.client, &world.pods, &*set, &spec.selector).await?;
    let active: Vec<Rc<Pod>> = mine.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let outcome = match set.metadata.deletion_timestamp {
        None => scale(world, actor, &set, &active).await,
        Some(_) => Ok(()),
    };
    // What was just made or asked to go counts in the status already.
    let now_mine: Vec<Rc<Pod>> = owned(world, &set);
    let status = status(
        &set,
        &now_mine,
        outcome.as_ref().err().map(|error| (active.len(), pods::text(error))),
        Timestamp::now(),
    );
    write_status(world, actor, &set, status).await?;
    outcome?;
    Ok(next_look(&set, &now_mine))
}

/// The pods a set controls, as the cache knows them.
fn owned(world: &World, set: &ReplicaSet) -> Vec<Rc<Pod>> {
    let mut all = world.pods.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| ownership::is_controlled_by(&pod.metadata, set.metadata.uid.as_deref()));
    all
}

/// A ready pod becomes available by time alone: when is the next?
fn next_look(set: &ReplicaSet, mine: &[Rc<Pod>]) -> Next {
    let min_ready = min_ready(set);
    let waits = mine.iter().filter_map(|pod| pods::available_in(pod, min_ready, Timestamp::now()));
    waits.filter(|wait| !wait.is_zero()).min().map_or(Next::Done, Next::After)
}

fn min_ready(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

async fn scale(
    world: &Rc<World>,
    actor: &Actor,
    set: &ReplicaSet,
    active: &[Rc<Pod>],
) -> Result<(), kube::Error> {
    let wanted = wanted(set);
    if active.len() < wanted {
        let missing = (wanted - active.len()).min(BURST);
        info!(replica_set = key_of(set), wanted, missing, "too few replicas");
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let new = vec![pods::from_template(&template, namespace, ownership::reference(set)); missing];
        return pods::create_many(world, actor, set, &new).await;
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus > 0 {
        info!(replica_set = key_of(set), wanted, surplus, "too many replicas");
        let leaving = surplus_pods(active, surplus, &crowding(world, set, active));
        let outcomes = join_all(leaving.iter().map(|pod| pods::delete(world, actor, set, pod))).await;
        outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
    }
    Ok(())
}

/// How many pods of the same deployment are on each node: doubled ones go first.
fn crowding(world: &World, set: &ReplicaSet, active: &[Rc<Pod>]) -> HashMap<String, usize> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let owner = ownership::controller_of(&set.metadata).map(|owner| owner.uid.clone());
    let siblings: Vec<Option<String>> = match &owner {
        None => Vec::new(),
        Some(uid) => {
            let mut sets = world.replica_sets.in_namespace(namespace);
            sets.retain(|other| ownership::is_controlled_by(&other.metadata, Some(uid)));
            sets.iter().map(|other| other.metadata.uid.clone()).collect()
        }
    };
    let related: Vec<Rc<Pod>> = match siblings.is_empty() {
        true => active.to_vec(),
        false => {
            let mut all = world.pods.in_namespace(namespace);
            all.retain(|pod| {
                pods::is_active(pod)
                    && siblings.iter().any(|uid| ownership::is_controlled_by(&pod.metadata, uid.as_deref()))
            });
            all
        }
    };
    let mut counts = HashMap::new();
    for node in related.iter().filter_map(|pod| pods::node_of(pod)) {
        *counts.entry(node.to_owned()).or_default() += 1;
    }
    counts
}

/// Which pods to delete first (`ActivePodsWithRanks`): the least useful.
pub(super) fn surplus_pods(
    active: &[Rc<Pod>],
    surplus: usize,
    crowding: &HashMap<String, usize>,
) -> Vec<Rc<Pod>> {
    let mut ranked = active.to_vec();
    ranked.sort_by_cached_key(|pod| {
        let phase = match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let cost: i64 = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"))
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let doubled = pods::node_of(pod).and_then(|node| crowding.get(node)).copied().unwrap_or(0);
        let statuses =
            pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let restarts = statuses.iter().map(|container| container.restart_count).max().unwrap_or(0);
        let ready_since = pod.status.as_ref().and_then(|status| {
            let ready = status
                .conditions
                .iter()
                .flatten()
                .find(|one| one.type_ == "Ready" && one.status == "True")?;
            ready.last_transition_time.clone()
        });
        let age = (Reverse(ready_since), Reverse(restarts), Reverse(pod.metadata.creation_timestamp.clone()));
        (pods::node_of(pod).is_some(), phase, pods::is_ready(pod), cost, Reverse(doubled), age)
    });
    ranked.truncate(surplus);
    ranked
}

/// The status these pods make; `failure` is how many pods there were and why there are not more.
fn status(
    set: &ReplicaSet,
    mine: &[Rc<Pod>],
    failure: Option<(usize, String)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let active: Vec<&Rc<Pod>> = mine.iter().filter(|pod| pods::is_active(pod)).collect();
    let count = |fits: &dyn Fn(&Pod) -> bool| {
        i32::try_from(active.iter().filter(|pod| fits(pod)).count()).unwrap_or(i32::MAX)
    };
    let labels = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.as_ref())
        .and_then(|template| template.metadata.as_ref())
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let labeled = |pod: &Pod| {
        labels
            .iter()
            .all(|(key, value)| pod.metadata.labels.as_ref().and_then(|all| all.get(key)) == Some(value))
    };
    let terminating = mine
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some() && !pods::is_finished(pod))
        .count();
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.clone().unwrap_or_default();
    let failed = conditions.iter().any(|one| one.type_ == "ReplicaFailure");
    match failure {
        None => conditions.retain(|one| one.type_ != "ReplicaFailure"),
        Some(_) if failed => {}
        Some((had, message)) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(if had < wanted(set) { "FailedCreate" } else { "FailedDelete" }.into()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }),
    }
    ReplicaSetStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: Some(count(&labeled)).filter(|count| *count > 0),
        ready_replicas: Some(count(&pods::is_ready)).filter(|count| *count > 0),
        available_replicas: Some(count(&|pod| pods::is_available(pod, min_ready(set), now)))
            .filter(|count| *count > 0),
        terminating_replicas: Some(i32::try_from(terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|all| !all.is_empty()),
    }
}

async fn write_status(
    world: &World,
    actor: &Actor,
    set: &ReplicaSet,
    status: ReplicaSetStatus,
) -> Result<(), kube::Error> {
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut changed = set.clone();
    changed.status = Some(status);
    let api: Api<ReplicaSet> =
        Api::namespaced(actor.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
    let name = set.metadata.name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), &changed).await {
        Ok(written) => world.replica_sets.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::pods::tests::pod;
    use super::*;
    use serde_json::json;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 3},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}},
        }))
        .unwrap()
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let mut unassigned = pod("unassigned", "Pending", None);
        unassigned.spec.as_mut().unwrap().node_name = None;
        let old = pod("ready-long", "Running", Some(10));
        let young = pod("ready-short", "Running", Some(90));
        let starting = pod("starting", "Running", None);
        let all: Vec<Rc<Pod>> = [old, young, starting, unassigned].into_iter().map(Rc::new).collect();
        let names: Vec<String> = surplus_pods(&all, 3, &HashMap::new())
            .iter()
            .map(|pod| pod.metadata.name.clone().unwrap())
            .collect();
        assert_eq!(names, ["unassigned", "starting", "ready-short"]);
    }

    #[test]
    fn a_status_counts_active_pods_only() {
        let now = Timestamp::from_second(100).unwrap();
        let mut leaving = pod("leaving", "Running", Some(1));
        leaving.metadata.deletion_timestamp = Some(Time(now));
        let mine =
            [pod("a", "Running", Some(1)), pod("b", "Running", None), pod("c", "Failed", None), leaving];
        let mine: Vec<Rc<Pod>> = mine.into_iter().map(Rc::new).collect();
        let status = status(&set(3), &mine, None, now);
        assert_eq!(
            (status.replicas, status.ready_replicas, status.available_replicas),
            (2, Some(1), Some(1))
        );
        assert_eq!((status.terminating_replicas, status.observed_generation), (Some(1), Some(3)));
    }

    #[test]
    fn a_refused_creation_is_a_condition_until_it_works() {
        let now = Timestamp::from_second(100).unwrap();
        let mut set = set(3);
        set.status = Some(status(&set, &[], Some((0, "quota".into())), now));
        let condition = &set.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
        assert_eq!(condition.reason.as_deref(), Some("FailedCreate"));
        assert_eq!(status(&set, &[], None, now).conditions, None);
    }
}
