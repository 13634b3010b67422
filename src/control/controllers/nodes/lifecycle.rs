//! Node lifecycle: tells a node that stopped talking from one that talks, and taints accordingly.
//!
//! A node is alive while its lease or its status changes. What counts is when *we* saw the change, so
//! clocks may differ and a restart of this role grants everyone a fresh grace period. Silent longer
//! than the grace period: conditions turn `Unknown`, pods are marked not ready, taints keep new pods
//! away and (through the taint-eviction loop) push old ones off. Left out: zones and eviction rates,
//! which protect clusters a lab will never be.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::{info, warn};

use super::{condition, taints};
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::workloads::pods;
use crate::control::controllers::world::{Actor, World};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions the kubelet reports, which turn `Unknown` with it.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Condition, its status, and the taint (effect NoSchedule) it means.
const NO_SCHEDULE: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// When a node last showed that it lives.
type Heard = Rc<RefCell<HashMap<String, Instant>>>;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let heard = Heard::default();
    listen(world, &queue, &heard);
    let actor = world.actor("node-controller", "node-controller");
    let world = world.clone();
    Box::pin(async move {
        world.nodes.synced().await;
        world.leases.synced().await;
        queue.work("node-lifecycle", 4, |name| monitor(&world, &actor, &heard, name)).await;
    })
}

/// Feeds the queue and notes signs of life.
fn listen(world: &Rc<World>, queue: &Queue, heard: &Heard) {
    let (fed, noted, seen_by) = (queue.clone(), heard.clone(), world.clone());
    let introduced = world.actor("node-controller", "node-controller");
    world.nodes.on_change(move |old, new| {
        let name = new.or(old).map(|node| key_of(&**node)).unwrap_or_default();
        let Some(new) = new else {
            noted.borrow_mut().remove(&name);
            if let Some(old) = old {
                introduced.normal(
                    &**old,
                    "RemovingNode",
                    &format!("Node {name} event: Removing Node {name} from Controller"),
                );
            }
            return;
        };
        if old.is_none() {
            let text = format!("Node {name} event: Registered Node {name} in Controller");
            introduced.normal(&**new, "RegisteredNode", &text);
        }
        if old.is_none_or(|old| heartbeat(old) != heartbeat(new)) {
            noted.borrow_mut().insert(name.clone(), Instant::now());
        }
        fed.add(name);
    });
    let (fed, noted) = (queue.clone(), heard.clone());
    world.leases.on_change(move |old, new| {
        let renewed = |lease: &Rc<k8s_openapi::api::coordination::v1::Lease>| {
            lease.spec.as_ref().and_then(|spec| spec.renew_time.clone())
        };
        let Some(new) = new.filter(|new| old.is_none_or(|old| renewed(old) != renewed(new))) else { return };
        let name = new.metadata.name.clone().unwrap_or_default();
        noted.borrow_mut().insert(name.clone(), Instant::now());
        // A node that was given up may be back; its own status report decides.
        if seen_by.nodes.get(&name).is_some_and(|node| is_unknown(&node)) {
            fed.add(name);
        }
    });
}

fn heartbeat(node: &Node) -> Option<Time> {
    condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone())
}

fn is_unknown(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "Unknown")
}

async fn monitor(world: &World, actor: &Actor, heard: &Heard, name: String) -> Result<Next, kube::Error> {
    let Some(node) = world.nodes.get(&name) else { return Ok(Next::Done) };
    let since = *heard.borrow_mut().entry(name.clone()).or_insert_with(Instant::now);
    let silent = since.elapsed();
    let grace = world.options.node_monitor_grace_period;
    let node = match silent > grace && !is_unknown(&node) {
        true => give_up(world, actor, &node).await?,
        false => node,
    };
    let wanted = wanted_taints(&node, Timestamp::now());
    if wanted != taints(&node) {
        let patch = json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": wanted},
        });
        let api: Api<Node> = Api::all(actor.client.clone());
        let node = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        info!(node = name, taints = ?keys(&wanted), "taints follow the node's conditions");
        world.nodes.learn(node);
    }
    if condition(&node, "Ready").is_none_or(|ready| ready.status != "True") {
        pods_not_ready(world, actor, &name).await?;
    }
    Ok(Next::After(grace.saturating_sub(silent).max(world.options.node_monitor_period)))
}

fn keys(taints: &[Taint]) -> Vec<&str> {
    taints.iter().map(|taint| taint.key.as_str()).collect()
}

/// Turns the conditions of a silent node `Unknown`.
async fn give_up(world: &World, actor: &Actor, node: &Node) -> Result<Rc<Node>, kube::Error> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let patch = json!({"status": {"conditions": unknown_conditions(node, Timestamp::now())}});
    let api: Api<Node> = Api::all(actor.client.clone());
    let silent = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    warn!(node = name, "node stopped posting its status");
    actor.normal(node, "NodeNotReady", &format!("Node {name} status is now: NodeNotReady"));
    world.nodes.learn(silent.clone());
    Ok(Rc::new(silent))
}

fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let unknown = |type_: &&str| {
        let known = condition(node, type_);
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        NodeCondition {
            type_: (*type_).into(),
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: known
                .and_then(|known| known.last_heartbeat_time.clone())
                .or_else(|| node.metadata.creation_timestamp.clone()),
            last_transition_time: Some(Time(now)),
        }
    };
    REPORTED.iter().map(unknown).collect()
}

/// The taints a node should have: those of others kept, ours as its conditions say.
fn wanted_taints(node: &Node, now: Timestamp) -> Vec<Taint> {
    let status = |type_: &str| condition(node, type_).map(|one| one.status.as_str());
    let mut ours: Vec<(&str, &str)> = NO_SCHEDULE
        .iter()
        .filter(|(type_, when, _)| status(type_) == Some(*when))
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    match status("Ready") {
        Some("False") => ours.push((NOT_READY, "NoExecute")),
        Some("Unknown") => ours.push((UNREACHABLE, "NoExecute")),
        Some(_) => {}
        // A node that never reported keeps the taint it registered with.
        None => ours.extend(
            taints(node).iter().any(|taint| taint.key == NOT_READY).then_some((NOT_READY, "NoSchedule")),
        ),
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        ours.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let managed = |taint: &Taint| {
        let by_condition =
            NO_SCHEDULE.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
        (by_condition && taint.effect == "NoSchedule")
            || (matches!(taint.key.as_str(), NOT_READY | UNREACHABLE) && taint.effect == "NoExecute")
    };
    let mut wanted: Vec<Taint> = taints(node)
        .iter()
        .filter(|taint| !managed(taint) || ours.contains(&(taint.key.as_str(), taint.effect.as_str())))
        .cloned()
        .collect();
    for (key, effect) in ours {
        if !wanted.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            // Upstream dates only NoExecute taints: tolerationSeconds count from there.
            let time_added = (effect == "NoExecute").then_some(Time(now));
            wanted.push(Taint { key, effect, value: None, time_added });
        }
    }
    wanted
}

/// A node that is not ready serves nothing: its pods leave the endpoints.
async fn pods_not_ready(world: &World, actor: &Actor, node: &str) -> Result<(), kube::Error> {
    let here = |pod: &Rc<Pod>| pods::node_of(pod) == Some(node) && pods::is_ready(pod);
    for pod in world.pods.all().into_iter().filter(here) {
        let (namespace, name) = pods::place(&pod);
        let now = Time(Timestamp::now());
        let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}]}});
        let api: Api<Pod> = Api::namespaced(actor.client.clone(), namespace);
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(marked) => world.pods.learn(marked),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
        actor.warning(&*pod, "NodeNotReady", "Node is not ready");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: Option<&str>, taints: serde_json::Value, unschedulable: bool) -> Node {
        let conditions: Vec<_> =
            ready.iter().map(|status| json!({"type": "Ready", "status": status})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "node-1"},
            "spec": {"taints": taints, "unschedulable": unschedulable},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn wanted(node: &Node) -> Vec<String> {
        let taints = wanted_taints(node, Timestamp::UNIX_EPOCH);
        taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn a_ready_node_loses_the_taint_it_registered_with_and_keeps_those_of_others() {
        let taints = json!([
            {"key": NOT_READY, "effect": "NoSchedule"},
            {"key": "gpu", "value": "yes", "effect": "NoSchedule"},
        ]);
        assert_eq!(wanted(&node(Some("True"), taints.clone(), false)), ["gpu:NoSchedule"]);
        assert_eq!(
            wanted(&node(None, taints, false)),
            ["node.kubernetes.io/not-ready:NoSchedule", "gpu:NoSchedule"]
        );
    }

    #[test]
    fn a_silent_node_is_unreachable_and_a_sick_one_not_ready() {
        let none = || json!([]);
        assert_eq!(
            wanted(&node(Some("Unknown"), none(), false)),
            ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
        );
        assert_eq!(
            wanted(&node(Some("False"), none(), true)),
            [
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
                "node.kubernetes.io/unschedulable:NoSchedule"
            ]
        );
    }

    #[test]
    fn conditions_of_a_silent_node_say_whether_it_ever_spoke() {
        let conditions = unknown_conditions(&node(Some("True"), json!([]), false), Timestamp::UNIX_EPOCH);
        assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
        assert_eq!(conditions[1].message.as_deref(), Some("Kubelet never posted node status."));
    }
}
