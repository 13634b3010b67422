//! Pod garbage: pods whose node is gone, pods that go without ever having had one, and old finished ones.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tracing::{info, warn};

use super::queue::{Next, Queue};
use super::workloads::pods;
use super::world::{Actor, World};

/// Between sweeps.
const PERIOD: Duration = Duration::from_secs(20);
/// A node that just vanished may be a new object of the same name in a moment.
const QUARANTINE: Duration = Duration::from_secs(40);

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    queue.add("sweep");
    let fed = queue.clone();
    world.pods.on_change(move |old, new| {
        // One that is asked to go before any kubelet has it waits for nobody.
        let unscheduled =
            |pod: &Rc<Pod>| pod.metadata.deletion_timestamp.is_some() && pods::node_of(pod).is_none();
        if new.is_some_and(unscheduled) && !old.is_some_and(unscheduled) {
            fed.add("sweep");
        }
    });
    let actor = world.actor("pod-garbage-collector", "pod-garbage-collector");
    let world = world.clone();
    let missing = RefCell::new(HashMap::new());
    Box::pin(async move {
        world.pods.synced().await;
        world.nodes.synced().await;
        queue.work("podgc", 1, |_| sweep(&world, &actor, &missing)).await;
    })
}

/// Why a pod goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    Orphaned,
    Unscheduled,
    Finished,
}

/// The pods to delete. `lost` says whether a node of this name is really gone.
fn garbage(all: &[Rc<Pod>], threshold: usize, lost: &dyn Fn(&str) -> bool) -> Vec<(Rc<Pod>, Why)> {
    let mut out = Vec::new();
    let mut finished: Vec<&Rc<Pod>> = Vec::new();
    for pod in all {
        match pods::node_of(pod) {
            Some(node) if lost(node) => out.push((pod.clone(), Why::Orphaned)),
            None if pod.metadata.deletion_timestamp.is_some() => out.push((pod.clone(), Why::Unscheduled)),
            _ if pods::is_finished(pod) => finished.push(pod),
            _ => {}
        }
    }
    finished.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    let surplus = if threshold == 0 { 0 } else { finished.len().saturating_sub(threshold) };
    out.extend(finished.into_iter().take(surplus).map(|pod| (pod.clone(), Why::Finished)));
    out
}

async fn sweep(
    world: &World,
    actor: &Actor,
    missing: &RefCell<HashMap<String, Instant>>,
) -> Result<Next, kube::Error> {
    let all = world.pods.all();
    let gone = missing_nodes(world, actor, &all, missing).await?;
    for (pod, why) in
        garbage(&all, world.options.terminated_pod_gc_threshold, &|node| gone.iter().any(|one| one == node))
    {
        let (namespace, name) = pods::place(&pod);
        info!(namespace, pod = name, reason = ?why, "force deleting pod");
        if let Err(error) = delete(actor, &pod, why).await {
            warn!(namespace, pod = name, %error, "delete a pod");
        }
    }
    Ok(Next::After(PERIOD))
}

/// Nodes that pods name and that have been away for the whole quarantine, asked again at the end of it.
async fn missing_nodes(
    world: &World,
    actor: &Actor,
    all: &[Rc<Pod>],
    missing: &RefCell<HashMap<String, Instant>>,
) -> Result<Vec<String>, kube::Error> {
    let unknown: Vec<String> = all
        .iter()
        .filter_map(|pod| pods::node_of(pod))
        .filter(|node| world.nodes.get(node).is_none())
        .map(str::to_owned)
        .collect();
    missing.borrow_mut().retain(|node, _| unknown.contains(node));
    let mut gone = Vec::new();
    for node in unknown {
        let since = *missing.borrow_mut().entry(node.clone()).or_insert_with(Instant::now);
        if since.elapsed() < QUARANTINE || gone.contains(&node) {
            continue;
        }
        let api: Api<Node> = Api::all(actor.client.clone());
        if api.get_opt(&node).await?.is_none() {
            gone.push(node);
        }
    }
    Ok(gone)
}

async fn delete(actor: &Actor, pod: &Pod, why: Why) -> Result<(), kube::Error> {
    let (namespace, name) = pods::place(pod);
    let api: Api<Pod> = Api::namespaced(actor.client.clone(), namespace);
    // Nobody will ever report on it again: what is still open is a failure.
    if why == Why::Orphaned && !pods::is_finished(pod) {
        let patch = json!({"status": {"phase": "Failed", "conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists", "lastTransitionTime": Time(Timestamp::now()),
        }]}});
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    }
    let only_this = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(only_this),
        ..DeleteParams::default()
    };
    match api.delete(name, &now).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::super::workloads::pods::tests::pod;
    use super::*;

    #[test]
    fn orphans_go_and_so_do_the_oldest_finished_ones_over_the_threshold() {
        let mut old = pod("old", "Succeeded", None);
        old.metadata.creation_timestamp = Some(Time(Timestamp::from_second(1).unwrap()));
        let mut young = pod("young", "Failed", None);
        young.metadata.creation_timestamp = Some(Time(Timestamp::from_second(9).unwrap()));
        let mut orphan = pod("orphan", "Running", None);
        orphan.spec.as_mut().unwrap().node_name = Some("gone".into());
        let mut unscheduled = pod("unscheduled", "Pending", None);
        unscheduled.spec.as_mut().unwrap().node_name = None;
        unscheduled.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        let all: Vec<Rc<Pod>> =
            [young, old, orphan, unscheduled, pod("a", "Running", None)].map(Rc::new).to_vec();
        let went: Vec<(String, Why)> = garbage(&all, 1, &|node| node == "gone")
            .into_iter()
            .map(|(pod, why)| (pod.metadata.name.clone().unwrap(), why))
            .collect();
        assert_eq!(
            went,
            [
                ("orphan".to_owned(), Why::Orphaned),
                ("unscheduled".to_owned(), Why::Unscheduled),
                ("old".to_owned(), Why::Finished)
            ]
        );
    }
}
