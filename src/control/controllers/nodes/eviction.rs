//! Taint eviction: deletes pods that do not tolerate a NoExecute taint of their node, in time.
//!
//! A toleration with `tolerationSeconds` counts from when the taint was added, as written in the
//! taint itself, so the deadline survives a restart of this role.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tracing::info;

use super::taints;
use crate::api::taints::tolerates;
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::workloads::pods;
use crate::control::controllers::world::{Actor, World};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let (fed, seen) = (queue.clone(), world.clone());
    world.nodes.on_change(move |old, new| {
        let (Some(node), before) = (new, old.map(|node| no_execute(node))) else { return };
        if before.unwrap_or_default() != no_execute(node) {
            let name = node.metadata.name.as_deref();
            seen.pods
                .all()
                .iter()
                .filter(|pod| pods::node_of(pod) == name)
                .for_each(|pod| fed.add(key_of(&**pod)));
        }
    });
    let fed = queue.clone();
    world.pods.on_change(move |old, new| {
        let moved = |pod: &&Rc<Pod>| old.is_none_or(|old| pods::node_of(old) != pods::node_of(pod));
        if let Some(pod) = new.filter(moved) {
            fed.add(key_of(&**pod));
        }
    });
    let actor = world.actor("node-controller", "taint-eviction-controller");
    let world = world.clone();
    Box::pin(async move {
        world.nodes.synced().await;
        world.pods.synced().await;
        queue.work("taint-eviction", 8, |key| evict(&world, &actor, key)).await;
    })
}

fn no_execute(node: &Node) -> Vec<Taint> {
    taints(node).iter().filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// How long from `now` a pod may stay beside these NoExecute taints; `None` = for ever.
fn may_stay(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Duration> {
    let left = |taint: &Taint| {
        let mut seconds: Option<i64> = None;
        let mut tolerated = false;
        for toleration in tolerations.iter().filter(|toleration| tolerates(toleration, taint)) {
            tolerated = true;
            let limit = toleration.toleration_seconds;
            seconds = seconds.into_iter().chain(limit).min();
        }
        if !tolerated {
            return Some(Duration::ZERO);
        }
        let added = taint.time_added.as_ref().map_or(now, |time| time.0);
        let until = added.as_second().saturating_add(seconds?.max(0));
        Some(Duration::from_secs(u64::try_from(until.saturating_sub(now.as_second())).unwrap_or(0)))
    };
    taints.iter().filter_map(left).min()
}

async fn evict(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(pod) = world.pods.get(&key).filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
        return Ok(Next::Done);
    };
    let Some(node) = pods::node_of(&pod).and_then(|name| world.nodes.get(name)) else {
        return Ok(Next::Done);
    };
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    match may_stay(&no_execute(&node), tolerations, Timestamp::now()) {
        None => Ok(Next::Done),
        Some(Duration::ZERO) => delete(world, actor, &pod).await,
        Some(left) => Ok(Next::After(left)),
    }
}

async fn delete(world: &World, actor: &Actor, pod: &Pod) -> Result<Next, kube::Error> {
    let (namespace, name) = pods::place(pod);
    let api: Api<Pod> = Api::namespaced(actor.client.clone(), namespace);
    let condition = json!({"status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(Timestamp::now()),
    }]}});
    actor.normal(pod, "TaintManagerEviction", &format!("Marking for deletion Pod {namespace}/{name}"));
    let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(condition)).await {
        Err(error) if gone(&error) => return Ok(Next::Done),
        other => other.map(drop)?,
    }
    let uid = pod.metadata.uid.clone();
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await {
        Err(error) if gone(&error) => {}
        other => other.map(drop)?,
    }
    world.pods.leaving(&key_of(pod), uid.as_deref());
    info!(pod = key_of(pod), "evicted because of a NoExecute taint");
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, added: i64) -> Taint {
        Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            value: None,
            time_added: Some(Time(Timestamp::from_second(added).unwrap())),
        }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    #[test]
    fn a_pod_stays_as_long_as_its_shortest_toleration() {
        let now = Timestamp::from_second(100).unwrap();
        assert_eq!(may_stay(&[], &[], now), None);
        assert_eq!(may_stay(&[taint("a", 90)], &[], now), Some(Duration::ZERO));
        assert_eq!(may_stay(&[taint("a", 90)], &[toleration("a", None)], now), None);
        let both = [toleration("a", Some(300)), toleration("b", Some(30))];
        assert_eq!(may_stay(&[taint("a", 90), taint("b", 95)], &both, now), Some(Duration::from_secs(25)));
        assert_eq!(may_stay(&[taint("b", 50)], &both, now), Some(Duration::ZERO));
    }
}
