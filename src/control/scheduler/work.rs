//! The scheduling loop: takes a pod, chooses a node, binds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::claims::{Claims, has_claims};
use super::cluster::{Candidate, Cluster, uid};
use super::filter::{Refusal, check, explain, explain_for_all};
use super::pending::{Pending, priority};
use super::preempt::{self, Preemption};
use super::score::best;
use super::{neighbours, spread};
use crate::client::Backoff;
use crate::client::events::{Kind, Recorder, reference};
use crate::client::informer::{Informer, key_of};

const NAME: &str = "default-scheduler";
const SELECTED: &str = "volume.kubernetes.io/selected-node";
/// Between a binding the API server could not take and the next try.
const RETRY: Duration = Duration::from_millis(50);

/// The role's state; cloning shares it.
#[derive(Clone)]
pub struct Scheduler(Rc<Inner>);

pub struct Inner {
    client: Client,
    recorder: Recorder,
    pub nodes: Informer<Node>,
    pub pods: Informer<Pod>,
    claims: Claims,
    cluster: RefCell<Cluster>,
    pending: RefCell<Pending>,
    /// By uid: pods that others were made to go for, and the node they wait for.
    nominated: RefCell<HashMap<String, (String, Rc<Pod>)>>,
    wake: Notify,
}

/// What a pod's look at the nodes came to.
enum Choice {
    Node(String),
    /// Nobody can take it now.
    None {
        why: String,
        preemption: Option<Preemption>,
    },
}

impl std::ops::Deref for Scheduler {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Whether this pod is for us to place.
fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let name = spec.scheduler_name.as_deref().unwrap_or(NAME);
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    node_of(pod).is_none()
        && name == NAME
        && !gated
        && pod.metadata.deletion_timestamp.is_none()
        && !is_finished(pod)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a node changed in a way that may let in a pod it refused before. Heartbeats do not.
fn may_help(old: Option<&Node>, new: &Node) -> bool {
    let Some(old) = old else { return true };
    let spec = |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable));
    let has = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
    old.metadata.labels != new.metadata.labels || spec(old) != spec(new) || has(old) != has(new)
}

impl Scheduler {
    /// Registers its handlers; the caller runs the informers.
    pub fn new(client: Client) -> Self {
        let scheduler = Self(Rc::new(Inner {
            recorder: Recorder::new(client.clone(), NAME, ""),
            client,
            nodes: Informer::default(),
            pods: Informer::default(),
            claims: Claims::default(),
            cluster: RefCell::default(),
            pending: RefCell::default(),
            nominated: RefCell::default(),
            wake: Notify::new(),
        }));
        let this = scheduler.clone();
        scheduler.nodes.on_change(move |old, new| this.node_changed(old, new));
        let this = scheduler.clone();
        scheduler.pods.on_change(move |old, new| this.pod_changed(old, new));
        scheduler
    }

    fn node_changed(&self, old: Option<&Rc<Node>>, new: Option<&Rc<Node>>) {
        match new {
            Some(node) => {
                self.cluster.borrow_mut().set_node(node);
                if may_help(old.map(|node| &**node), node) {
                    self.retry();
                }
            }
            None => {
                let name = old.and_then(|node| node.metadata.name.as_deref()).unwrap_or_default();
                self.cluster.borrow_mut().remove_node(name);
            }
        }
    }

    fn pod_changed(&self, old: Option<&Rc<Pod>>, new: Option<&Rc<Pod>>) {
        let Some(pod) = new.filter(|pod| !is_finished(pod)) else {
            let Some(gone) = new.or(old) else { return };
            self.pending.borrow_mut().forget(&key_of(&**gone));
            self.nominated.borrow_mut().remove(uid(gone));
            if self.cluster.borrow_mut().forget(uid(gone)) {
                self.retry();
            }
            return;
        };
        if let Some(node) = node_of(pod) {
            self.pending.borrow_mut().forget(&key_of(&**pod));
            self.nominated.borrow_mut().remove(uid(pod));
            self.cluster.borrow_mut().place(pod, node);
            // It may be the neighbour that somebody waits for.
            let moved =
                old.is_none_or(|old| node_of(old).is_none() || old.metadata.labels != pod.metadata.labels);
            if moved && self.pending.borrow_mut().retry_neighbours() {
                self.wake.notify_one();
            }
        } else if !is_ours(pod) {
            self.pending.borrow_mut().forget(&key_of(&**pod));
        } else if !self.cluster.borrow().is_placed(uid(pod))
            && old.is_none_or(|old| old.spec != pod.spec || !is_ours(old))
        {
            self.pending.borrow_mut().add(pod);
            self.wake.notify_one();
        }
    }

    fn retry(&self) {
        if self.pending.borrow_mut().retry() {
            self.wake.notify_one();
        }
    }

    /// Places pods for ever. Choosing is done here, one pod at a time; binding goes on beside it.
    pub async fn run(&self) {
        loop {
            let next = self.pending.borrow_mut().next();
            match next {
                Some(key) => self.schedule(&key),
                None => self.wake.notified().await,
            }
        }
    }

    fn schedule(&self, key: &str) {
        let Some(pod) = self.pods.get(key).filter(|pod| is_ours(pod)) else { return };
        if self.cluster.borrow().is_placed(uid(&pod)) {
            return;
        }
        if has_claims(&pod) && !self.claims.synced.get() {
            self.pending.borrow_mut().stuck(&pod);
            return self.watch_claims();
        }
        let this = self.clone();
        match self.choose(&pod) {
            Choice::Node(node) if !self.claims.unbound(&pod).is_empty() => {
                // Its claims get volumes there first; their change brings it back.
                self.pending.borrow_mut().stuck(&pod);
                tokio::task::spawn_local(async move { this.select_node(pod, node).await });
            }
            Choice::Node(node) => {
                self.cluster.borrow_mut().place(&pod, &node);
                tokio::task::spawn_local(async move { this.bind(pod, node).await });
            }
            Choice::None { why, preemption } => {
                self.pending.borrow_mut().stuck(&pod);
                debug!(pod = key, reason = why, "unable to schedule pod; no fit; waiting");
                if let Some(preemption) = &preemption {
                    let waits = (preemption.node.clone(), pod.clone());
                    self.nominated.borrow_mut().insert(uid(&pod).to_owned(), waits);
                }
                tokio::task::spawn_local(async move {
                    this.refuse(pod.clone(), why, preemption.as_ref()).await;
                    if let Some(preemption) = preemption {
                        this.preempt(&pod, preemption).await;
                    }
                });
            }
        }
    }

    /// Learns of claims from now on; every change may let in a pod that waits for one.
    fn watch_claims(&self) {
        if self.claims.asked.replace(true) {
            return;
        }
        let this = self.clone();
        self.claims.known.on_change(move |_, _| this.retry());
        let client = || Api::all(self.client.clone());
        tokio::task::spawn_local(self.claims.known.clone().run(
            client(),
            Default::default(),
            Backoff::default,
        ));
        let client = || Api::all(self.client.clone());
        tokio::task::spawn_local(self.claims.volumes.clone().run(
            client(),
            Default::default(),
            Backoff::default,
        ));
        let client = || Api::all(self.client.clone());
        tokio::task::spawn_local(self.claims.classes.clone().run(
            client(),
            Default::default(),
            Backoff::default,
        ));
        let this = self.clone();
        tokio::task::spawn_local(async move {
            this.claims.known.synced().await;
            this.claims.volumes.synced().await;
            this.claims.classes.synced().await;
            this.claims.synced.set(true);
            this.retry();
        });
    }

    fn choose(&self, pod: &Rc<Pod>) -> Choice {
        let all = self.candidates(pod);
        if let Some(why) = self.claims.objection(pod).filter(|_| !all.is_empty()) {
            return Choice::None { why: explain_for_all(all.len(), &why), preemption: None };
        }
        let (mut fitting, mut refused): (Vec<&Candidate>, Vec<(usize, Refusal)>) = (Vec::new(), Vec::new());
        for (index, candidate) in all.iter().enumerate() {
            match self.fits(pod, candidate, &all) {
                Ok(()) => fitting.push(candidate),
                Err(refusal) => refused.push((index, refusal)),
            }
        }
        if let Some(name) = best(pod, &fitting, &all).and_then(|best| best.node.metadata.name.clone()) {
            return Choice::Node(name);
        }
        let refusals: Vec<Refusal> = refused.iter().map(|(_, refusal)| refusal.clone()).collect();
        // While those it made go are going, nobody else has to.
        let waits = self.nominated.borrow().get(uid(pod)).is_some_and(|(node, _)| {
            let at = all.iter().find(|one| one.node.metadata.name.as_ref() == Some(node));
            at.is_some_and(|at| {
                let lesser = |one: &&Rc<Pod>| priority(one) < priority(pod);
                at.load.here.iter().filter(lesser).any(|one| one.metadata.deletion_timestamp.is_some())
            })
        });
        let preemption = match waits || !preempt::may_preempt(pod) {
            true => None,
            false => preempt::find(pod, &all, &refused, |one, world| self.fits(pod, one, world).is_ok()),
        };
        Choice::None { why: explain(&refusals, preemption.is_some()), preemption }
    }

    /// The nodes as they will be when the pods that room was made for are there.
    fn candidates(&self, pod: &Pod) -> Vec<Candidate> {
        let mut all = self.cluster.borrow().candidates();
        for (node, other) in self.nominated.borrow().values() {
            if uid(other) != uid(pod)
                && priority(other) >= priority(pod)
                && let Some(at) = all.iter_mut().find(|one| one.node.metadata.name.as_ref() == Some(node))
            {
                at.load.add(other);
            }
        }
        all
    }

    /// Every plugin's say, in upstream's order.
    fn fits(&self, pod: &Pod, candidate: &Candidate, all: &[Candidate]) -> Result<(), Refusal> {
        check(pod, candidate)?;
        self.claims.check(pod, &candidate.node)?;
        spread::check(pod, candidate, all)?;
        neighbours::check(pod, candidate, all)
    }

    /// Tells the claims that wait for a pod which node it goes to.
    async fn select_node(&self, pod: Rc<Pod>, node: String) {
        for claim in self.claims.unbound(&pod) {
            let known = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED));
            if known == Some(&node) {
                continue;
            }
            let (namespace, _) = place(&pod);
            let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
            let patch = json!({"metadata": {"annotations": {SELECTED: node}}});
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            if let Err(error) = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
                warn!(claim = name, %error, "tell the claim its node");
                tokio::time::sleep(RETRY).await;
                self.retry();
            }
        }
    }

    /// Makes others go. Their pod stays where it waits and is looked at again when they are gone.
    async fn preempt(&self, pod: &Pod, preemption: Preemption) {
        for victim in &preemption.victims {
            let (namespace, name) = place(victim);
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let said = preempt::said(pod, &preemption.node);
            let condition = json!({"metadata": {"uid": victim.metadata.uid}, "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": "default-scheduler: preempting to accommodate a higher priority pod",
                "lastTransitionTime": Time(Timestamp::now()),
            }]}});
            let _ = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(condition)).await;
            let only_this = Preconditions { uid: victim.metadata.uid.clone(), resource_version: None };
            let how = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
            match api.delete(name, &how).await {
                Ok(_) => {
                    info!(pod = key_of(pod), victim = name, node = preemption.node, "preempted a pod");
                    self.recorder.event(&reference(&**victim), Kind::Normal, "Preempted", said);
                }
                Err(error) => debug!(victim = name, %error, "preempt"),
            }
        }
    }

    async fn bind(&self, pod: Rc<Pod>, node: String) {
        let (namespace, name) = place(&pod);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
                uid: pod.metadata.uid.clone(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.clone()),
                ..ObjectReference::default()
            },
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let answer: Result<serde_json::Value, kube::Error> =
            api.create_subresource("binding", name, &PostParams::default(), &binding).await;
        match answer {
            Ok(_) => {
                info!(pod = key_of(&*pod), node, "successfully bound pod to node");
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.event(&reference(&*pod), Kind::Normal, "Scheduled", message);
            }
            Err(error) => self.unbind(&pod, &error).await,
        }
    }

    /// The binding failed: the pod does not count there, and is tried again if it still wants a node.
    async fn unbind(&self, pod: &Pod, error: &kube::Error) {
        let lost = matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409));
        if !lost {
            warn!(pod = key_of(pod), %error, "binding rejected");
            tokio::time::sleep(RETRY).await;
        }
        let known = self.pods.get(&key_of(pod)).filter(|known| known.metadata.uid == pod.metadata.uid);
        // Somebody else may have bound it meanwhile: then it counts where they put it.
        if known.as_ref().is_some_and(|known| node_of(known).is_some()) {
            return;
        }
        self.cluster.borrow_mut().forget(uid(pod));
        if let Some(known) = known.filter(|known| is_ours(known)) {
            self.pending.borrow_mut().add(&known);
            self.wake.notify_one();
        }
    }

    /// Says why a pod waits, in its events and its status.
    async fn refuse(&self, pod: Rc<Pod>, why: String, preemption: Option<&Preemption>) {
        self.recorder.event(&reference(&*pod), Kind::Warning, "FailedScheduling", why.clone());
        let conditions =
            pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let known = conditions.iter().any(|one| {
            one.type_ == "PodScheduled" && one.status == "False" && one.message.as_deref() == Some(&why)
        });
        if known && preemption.is_none() {
            return;
        }
        let (namespace, name) = place(&pod);
        let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastTransitionTime": Time(Timestamp::now()), "observedGeneration": pod.metadata.generation,
        }]}});
        if let Some(preemption) = preemption {
            patch["status"]["nominatedNodeName"] = json!(preemption.node);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        if let Err(error) = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            debug!(pod = key_of(&*pod), %error, "write the pod's condition");
        }
    }
}

fn place(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_heartbeat_helps_nobody_and_a_lost_taint_does() {
        let old = node(json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}));
        let beat = node(json!({
            "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
        }));
        assert!(!may_help(Some(&old), &beat));
        assert!(may_help(Some(&beat), &node(json!({"spec": {}}))));
        assert!(may_help(None, &old));
    }

    #[test]
    fn only_unplaced_ungated_pods_of_this_scheduler_are_ours() {
        let pod = |spec: serde_json::Value| -> Pod { serde_json::from_value(json!({"spec": spec})).unwrap() };
        assert!(is_ours(&pod(json!({"containers": []}))));
        assert!(!is_ours(&pod(json!({"containers": [], "nodeName": "a"}))));
        assert!(!is_ours(&pod(json!({"containers": [], "schedulerName": "mine"}))));
        assert!(!is_ours(&pod(json!({"containers": [], "schedulingGates": [{"name": "g"}]}))));
    }
}
