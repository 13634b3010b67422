//! Pods that ask for storage: one whose claim is not there, or is not bound, waits (the VolumeBinding
//! plugin's PreFilter). Nothing here binds claims: a lab has no storage to give.
//!
//! Claims are watched from the first pod on that has one; most labs never see any.

use std::cell::Cell;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::client::informer::{Informer, key};

/// What is known of claims.
#[derive(Default)]
pub struct Claims {
    pub known: Informer<PersistentVolumeClaim>,
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
            unbound |= volume.is_none_or(str::is_empty);
        }
        unbound.then(|| "pod has unbound immediate PersistentVolumeClaims".into())
    }
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
