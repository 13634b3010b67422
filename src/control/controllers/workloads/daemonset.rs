//! DaemonSet: one pod on every node that should have one.
//!
//! Pods name their node by affinity and go through the scheduler, as upstream's do. Old templates are
//! told from new ones by a hash label and kept as ControllerRevisions.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, join_all};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tracing::info;

use super::deployment::share;
use super::{hash, ownership, pods, revisions};
use crate::api::taints::tolerates;
use crate::client::informer::key_of;
use crate::control::controllers::nodes::taints;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

const HASH: &str = "controller-revision-hash";
const GENERATION: &str = "pod-template-generation";

/// What every daemon tolerates: it serves the node, whatever state that is in.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const ON_HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.daemon_sets.on_change(move |_, new| {
        if let Some(set) = new {
            fed.add(key_of(&**set));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.nodes.on_change(move |old, new| {
        let face = |node: &Rc<Node>| (node.metadata.labels.clone(), taints(node).to_vec());
        if old.map(face) != new.map(face) {
            seen.daemon_sets.all().iter().for_each(|set| fed.add(key_of(&**set)));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let owners = old
            .into_iter()
            .chain(new)
            .filter_map(|pod| ownership::controller_key(&pod.metadata, "DaemonSet"));
        owners.for_each(|key| fed.add(key));
        if let Some(orphan) =
            new.filter(|pod| old.is_none() && ownership::controller_of(&pod.metadata).is_none())
        {
            let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
            seen.daemon_sets.in_namespace(namespace).iter().for_each(|set| fed.add(key_of(&**set)));
        }
    });
    let actor = world.actor("daemon-set-controller", "daemonset-controller");
    let world = world.clone();
    Box::pin(async move {
        world.daemon_sets.synced().await;
        world.pods.synced().await;
        world.nodes.synced().await;
        queue.work("daemonset", 4, |key| sync(&world, &actor, key)).await;
    })
}

async fn sync(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(set) = world.daemon_sets.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    ownership::claim(&actor.client, &world.pods, &*set, &spec.selector).await?;
    let nodes = world.nodes.all();
    let steps = plan(&set, &nodes, &owned(world, &set), Timestamp::now());
    if !steps.create.is_empty() || !steps.delete.is_empty() {
        info!(
            daemon_set = key,
            create = steps.create.len(),
            delete = steps.delete.len(),
            "pods follow the nodes"
        );
    }
    let outcomes = join_all(steps.delete.iter().map(|pod| pods::delete(world, actor, &*set, pod))).await;
    let made = pods::create_many(world, actor, &*set, &steps.create).await;
    write_status(world, actor, &set, status(&set, &nodes, &owned(world, &set), Timestamp::now())).await?;
    outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
    made?;
    keep_history(world, actor, &set).await?;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let waits = owned(world, &set)
        .into_iter()
        .filter_map(|pod| pods::available_in(&pod, min_ready, Timestamp::now()));
    Ok(waits.filter(|wait| !wait.is_zero()).min().map_or(Next::Done, Next::After))
}

/// Keeps the template for `kubectl rollout undo`, and those that pods still have.
async fn keep_history(world: &World, actor: &Actor, set: &DaemonSet) -> Result<(), kube::Error> {
    world.late.revisions.synced().await;
    let Some(spec) = &set.spec else { return Ok(()) };
    let collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let newest = revisions::ensure(world, actor, set, &spec.template, collisions).await?;
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let mine = owned(world, set);
    let lived = mine.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH));
    let mut live: Vec<String> = lived.map(|hash| format!("{name}-{hash}")).collect();
    live.extend(newest.metadata.name);
    revisions::truncate(world, actor, &set.metadata, &live, spec.revision_history_limit).await
}

fn owned(world: &World, set: &DaemonSet) -> Vec<Rc<Pod>> {
    let mut all = world.pods.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| ownership::is_controlled_by(&pod.metadata, set.metadata.uid.as_deref()));
    all
}

/// The node a daemon pod is on or meant for.
fn target(pod: &Pod) -> Option<&str> {
    if let Some(node) = pods::node_of(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    fields
        .filter(|field| field.key == "metadata.name")
        .find_map(|field| field.values.as_ref()?.first().map(String::as_str))
}

/// Whether a node should get a pod, and whether one that is there may stay.
fn should_run(set: &DaemonSet, node: &Node) -> (bool, bool) {
    let template = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let selected = template.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    if !selected {
        return (false, false);
    }
    let tolerations: Vec<Toleration> = template
        .tolerations
        .iter()
        .flatten()
        .cloned()
        .chain(daemon_tolerations(template.host_network == Some(true)))
        .collect();
    let kept_out = |effects: &[&str]| {
        let hard = |taint: &&Taint| effects.contains(&taint.effect.as_str());
        taints(node).iter().filter(hard).any(|taint| !tolerations.iter().any(|one| tolerates(one, taint)))
    };
    (!kept_out(&["NoSchedule", "NoExecute"]), !kept_out(&["NoExecute"]))
}

fn daemon_tolerations(host_network: bool) -> impl Iterator<Item = Toleration> {
    TOLERATED.iter().chain(host_network.then_some(&ON_HOST_NETWORK)).map(|(key, effect)| Toleration {
        key: Some((*key).into()),
        operator: Some("Exists".into()),
        effect: Some((*effect).into()),
        toleration_seconds: None,
        value: None,
    })
}

/// What to do next.
#[derive(Default)]
struct Steps {
    create: Vec<Pod>,
    delete: Vec<Rc<Pod>>,
}

fn template_hash(set: &DaemonSet) -> String {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    hash::of_template(&template, set.status.as_ref().and_then(|status| status.collision_count))
}

fn is_current(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).map(String::as_str) == Some(hash)
}

fn plan(set: &DaemonSet, nodes: &[Rc<Node>], mine: &[Rc<Pod>], now: Timestamp) -> Steps {
    let mut steps = Steps::default();
    let hash = template_hash(set);
    let mut by_node: BTreeMap<&str, Vec<&Rc<Pod>>> = BTreeMap::new();
    mine.iter()
        .filter_map(|pod| Some((target(pod)?, pod)))
        .for_each(|(node, pod)| by_node.entry(node).or_default().push(pod));
    let (mut current, mut outdated) = (Vec::new(), Vec::new());
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let here = by_node.remove(name).unwrap_or_default();
        let (run, stay) = should_run(set, node);
        let (alive, finished): (Vec<&Rc<Pod>>, Vec<&Rc<Pod>>) =
            here.iter().partition(|pod| !pods::is_finished(pod));
        let leaving = |pod: &&&Rc<Pod>| pod.metadata.deletion_timestamp.is_some();
        // A failed daemon is deleted, and made again when it is gone.
        steps.delete.extend(finished.iter().filter(|pod| !leaving(pod)).map(|pod| Rc::clone(pod)));
        if !stay {
            steps.delete.extend(alive.iter().filter(|pod| !leaving(pod)).map(|pod| Rc::clone(pod)));
        } else if here.is_empty() && run {
            steps.create.push(pod_for(set, name, &hash));
        }
        let mut alive: Vec<&Rc<Pod>> =
            alive.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        alive.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        if stay && alive.len() > 1 {
            steps.delete.extend(alive.drain(1..).map(Rc::clone));
        }
        if let Some(pod) = alive.first().filter(|_| stay) {
            if is_current(pod, &hash) { &mut current } else { &mut outdated }.push(Rc::clone(pod));
        }
    }
    // Pods of nodes that are gone are the pod collector's.
    let wanted = nodes.iter().filter(|node| should_run(set, node).0).count();
    steps.delete.extend(replace(set, wanted, &current, outdated, now));
    steps
}

/// The outdated pods that may go now: unavailable ones at once, others while few enough are missing.
fn replace(
    set: &DaemonSet,
    wanted: usize,
    current: &[Rc<Pod>],
    outdated: Vec<Rc<Pod>>,
    now: Timestamp,
) -> Vec<Rc<Pod>> {
    let spec = set.spec.clone().unwrap_or_default();
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return Vec::new();
    }
    let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
    let may_miss = strategy
        .rolling_update
        .and_then(|rolling| rolling.max_unavailable)
        .map_or(1, |limit| share(&limit, wanted, true))
        .max(1);
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let is_available = |pod: &Rc<Pod>| pods::is_available(pod, min_ready, now);
    let (serving, idle): (Vec<Rc<Pod>>, Vec<Rc<Pod>>) = outdated.into_iter().partition(is_available);
    let serve = current.iter().filter(|pod| is_available(pod)).count() + serving.len();
    let missing = wanted - i32::try_from(serve).unwrap_or(i32::MAX);
    let spare = usize::try_from(may_miss - missing).unwrap_or(0);
    idle.into_iter().chain(serving.into_iter().take(spare)).collect()
}

/// A daemon for one node.
fn pod_for(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pods::from_template(&template, namespace, ownership::reference(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.into());
    labels.insert(GENERATION.into(), set.metadata.generation.unwrap_or(0).to_string());
    let spec = pod.spec.get_or_insert_default();
    let tolerations = spec.tolerations.get_or_insert_default();
    for toleration in daemon_tolerations(spec.host_network == Some(true)) {
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    let here = vec![NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.into()]),
    }];
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: vec![NodeSelectorTerm::default()] });
    required.node_selector_terms.iter_mut().for_each(|term| term.match_fields = Some(here.clone()));
    pod
}

fn status(set: &DaemonSet, nodes: &[Rc<Node>], mine: &[Rc<Pod>], now: Timestamp) -> DaemonSetStatus {
    let hash = template_hash(set);
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let old = set.status.clone().unwrap_or_default();
    let mut counts = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for node in nodes {
        let here = |pod: &&Rc<Pod>| {
            target(pod) == node.metadata.name.as_deref() && pod.metadata.deletion_timestamp.is_none()
        };
        let mut all: Vec<&Rc<Pod>> = mine.iter().filter(here).collect();
        all.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
        match (should_run(set, node).0, all.first()) {
            (false, pod) => counts.number_misscheduled += i32::from(pod.is_some()),
            (true, None) => counts.desired_number_scheduled += 1,
            (true, Some(pod)) => {
                counts.desired_number_scheduled += 1;
                counts.current_number_scheduled += 1;
                counts.number_ready += i32::from(pods::is_ready(pod));
                available += i32::from(pods::is_available(pod, min_ready, now));
                updated += i32::from(is_current(pod, &hash));
            }
        }
    }
    let some = |number: i32| Some(number).filter(|number| *number != 0);
    counts.updated_number_scheduled = some(updated);
    counts.number_available = some(available);
    counts.number_unavailable = some(counts.desired_number_scheduled - available);
    counts
}

async fn write_status(
    world: &World,
    actor: &Actor,
    set: &DaemonSet,
    status: DaemonSetStatus,
) -> Result<(), kube::Error> {
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut changed = set.clone();
    changed.status = Some(status);
    let api: Api<DaemonSet> =
        Api::namespaced(actor.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
    match api
        .replace_status(set.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), &changed)
        .await
    {
        Ok(written) => world.daemon_sets.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(image: &str) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "agent", "namespace": "default", "uid": "d", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {
                "metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
        }))
        .unwrap()
    }

    fn node(name: &str, taints: Value) -> Rc<Node> {
        Rc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap(),
        )
    }

    fn running(set: &DaemonSet, node: &str) -> Rc<Pod> {
        let mut pod = pod_for(set, node, &template_hash(set));
        pod.metadata.name = Some(format!("agent-{node}"));
        pod.status = serde_json::from_value(
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
        )
        .unwrap();
        Rc::new(pod)
    }

    #[test]
    fn every_node_that_lets_it_in_gets_one_bound_by_name() {
        let closed = json!([{"key": "gpu", "effect": "NoSchedule"}]);
        let sick = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]);
        let nodes = [node("a", json!([])), node("b", closed), node("c", sick)];
        let steps = plan(&set("x"), &nodes, &[], Timestamp::now());
        let targets: Vec<&str> = steps.create.iter().filter_map(target).collect();
        assert_eq!(targets, ["a", "c"]);
        assert_eq!(status(&set("x"), &nodes, &[], Timestamp::now()).desired_number_scheduled, 2);
    }

    #[test]
    fn a_pod_that_is_there_is_left_until_the_node_throws_it_out() {
        let agent = set("x");
        let mine = [running(&agent, "a")];
        let closed = json!([{"key": "gpu", "effect": "NoSchedule"}]);
        let steps = plan(&agent, &[node("a", closed)], &mine, Timestamp::now());
        assert!(steps.create.is_empty() && steps.delete.is_empty());
        let out = json!([{"key": "gpu", "effect": "NoExecute"}]);
        assert_eq!(plan(&agent, &[node("a", out)], &mine, Timestamp::now()).delete.len(), 1);
    }

    #[test]
    fn a_new_template_replaces_one_serving_pod_at_a_time() {
        let nodes = [node("a", json!([])), node("b", json!([]))];
        let old = set("old");
        let mine = [running(&old, "a"), running(&old, "b")];
        let new = set("new");
        assert_eq!(plan(&new, &nodes, &mine, Timestamp::now()).delete.len(), 1);
        let half = [running(&new, "a"), running(&old, "b")];
        assert_eq!(plan(&new, &nodes, &half, Timestamp::now()).delete.len(), 1);
        let mut starting = (*half[0]).clone();
        starting.status = None;
        let steps = plan(&new, &nodes, &[Rc::new(starting), half[1].clone()], Timestamp::now());
        assert!(steps.delete.is_empty(), "one is missing already");
    }
}
