//! Pods that ask for storage (the VolumeBinding plugin): one whose claim is not there, or is not bound, waits;
//! one whose claims wait for it chooses its node, and the claims are told; where a volume is, the pod goes.
//!
//! Claims, volumes and classes are watched from the first pod on that has one; most labs never see any.

use std::cell::Cell;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;

use super::filter::{Refusal, term_matches};
use crate::client::informer::{Informer, key};
use std::rc::Rc;

/// What is known of claims.
#[derive(Default)]
pub struct Claims {
    pub known: Informer<PersistentVolumeClaim>,
    pub volumes: Informer<PersistentVolume>,
    pub classes: Informer<StorageClass>,
    /// Whether the watch was asked for, and whether it has said all there is.
    pub asked: Cell<bool>,
    pub synced: Cell<bool>,
}

/// A claim a pod names, or that is to be made for it alone.
struct Wanted {
    name: String,
    ephemeral: bool,
}

/// Whether a pod wants any.
pub fn has_claims(pod: &Pod) -> bool {
    !wanted(pod).is_empty()
}

fn wanted(pod: &Pod) -> Vec<Wanted> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => Some(Wanted { name: source.claim_name.clone(), ephemeral: false }),
            (None, Some(_)) => Some(Wanted { name: format!("{name}-{}", volume.name), ephemeral: true }),
            (None, None) => None,
        })
        .collect()
}

impl Claims {
    /// Why no node can take a pod, if its claims are the reason.
    pub fn objection(&self, pod: &Pod) -> Option<String> {
        let namespace = pod.metadata.namespace.as_deref();
        let mut unbound = false;
        for Wanted { name, ephemeral } in wanted(pod) {
            let Some(claim) = self.known.get(&key(namespace, &name)) else {
                return Some(match ephemeral {
                    true => format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    ),
                    false => format!("persistentvolumeclaim {name:?} not found"),
                });
            };
            if claim.metadata.deletion_timestamp.is_some() {
                return Some(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
            unbound |= volume.is_none_or(str::is_empty) && !self.waits_for_pod(&claim);
        }
        unbound.then(|| "pod has unbound immediate PersistentVolumeClaims".into())
    }

    /// Whether a claim's class lets the first pod choose the node.
    fn waits_for_pod(&self, claim: &PersistentVolumeClaim) -> bool {
        let class =
            claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
        let class = self.classes.get(class);
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
    }

    fn of(&self, pod: &Pod) -> Vec<Rc<PersistentVolumeClaim>> {
        let namespace = pod.metadata.namespace.as_deref();
        wanted(pod).iter().filter_map(|one| self.known.get(&key(namespace, &one.name))).collect()
    }

    /// The claims that have yet to hear which node this pod goes to.
    pub fn unbound(&self, pod: &Pod) -> Vec<Rc<PersistentVolumeClaim>> {
        let mut all = self.of(pod);
        all.retain(|claim| {
            let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
            volume.is_none_or(str::is_empty)
        });
        all
    }

    /// Whether a node reaches the volumes this pod has already.
    pub fn check(&self, pod: &Pod, node: &Node) -> Result<(), Refusal> {
        let bound = self.of(pod);
        let mut volumes = bound.iter().filter_map(|claim| {
            self.volumes.get(claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref())?)
        });
        match volumes.all(|volume| reaches(&volume, node)) {
            true => Ok(()),
            false => Err(Refusal::for_good("node(s) didn't match PersistentVolume's node affinity")),
        }
    }
}

/// Whether a volume can be used on a node.
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_waits_for_its_claim_to_be_there_and_bound() {
        let claims = Claims::default();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "x"}}]},
        }))
        .unwrap();
        assert!(has_claims(&pod) && !has_claims(&Pod::default()));
        assert_eq!(claims.objection(&pod).as_deref(), Some("persistentvolumeclaim \"x\" not found"));
        let claim = |volume: &str| {
            let claim = json!({"metadata": {"name": "x", "namespace": "default", "resourceVersion": "1"},
                "spec": {"volumeName": volume}});
            serde_json::from_value(claim).unwrap()
        };
        let unbound = Claims::default();
        unbound.known.learn(claim(""));
        let why = unbound.objection(&pod);
        assert_eq!(why.as_deref(), Some("pod has unbound immediate PersistentVolumeClaims"));
        let bound = Claims::default();
        bound.known.learn(claim("pv-1"));
        assert_eq!(bound.objection(&pod), None);
    }
}
