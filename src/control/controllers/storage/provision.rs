//! The provisioner behind the lab's class `standard`: a directory of the node that the first pod runs on.
//!
//! Stands for local-path-provisioner, which small clusters come with; there it is a pod of its own. Data is
//! taken away by a helper pod on that node, as there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, Pod, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::binder::reference;
use crate::control::controllers::queue::Next;
use crate::control::controllers::workloads::pods;
use crate::control::controllers::world::{Actor, World};

pub const NAME: &str = "minilab/local-path";
const BY: &str = "pv.kubernetes.io/provisioned-by";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Where the directories are on a node.
const ROOT: &str = "/var/local-path-provisioner";
const HELPERS: &str = "kube-system";

/// Makes the volume of one claim, on the node its first pod goes to, or the first there is.
pub async fn make(
    world: &World,
    actor: &Actor,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: Option<String>,
) -> Result<(), kube::Error> {
    let first = || world.nodes.all().first().and_then(|node| node.metadata.name.clone());
    let Some(node) = node.or_else(first) else {
        actor.warning(claim, "ProvisioningFailed", "no node has a place for the volume");
        return Ok(());
    };
    if claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        actor.warning(claim, "ProvisioningFailed", "this provisioner makes file systems, no block devices");
        return Ok(());
    }
    let volume = volume(claim, class, &node);
    let name = volume.metadata.name.clone().unwrap_or_default();
    let api: Api<PersistentVolume> = Api::all(actor.client.clone());
    match api.create(&PostParams::default(), &volume).await {
        Ok(made) => {
            actor.normal(claim, "ProvisioningSucceeded", &format!("Successfully provisioned volume {name}"));
            world.late.volumes.learn(made);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => {
            let why = format!(
                "failed to provision volume with StorageClass {:?}: {}",
                class.metadata.name.as_deref().unwrap_or_default(),
                pods::text(&error)
            );
            actor.warning(claim, "ProvisioningFailed", &why);
            Err(error)
        }
    }
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &str) -> PersistentVolume {
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let (namespace, own) = (
        claim.metadata.namespace.as_deref().unwrap_or_default(),
        claim.metadata.name.as_deref().unwrap_or_default(),
    );
    let spec = claim.spec.clone().unwrap_or_default();
    let asked = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let here = NodeSelectorRequirement {
        key: HOSTNAME.into(),
        operator: "In".into(),
        values: Some(vec![node.into()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![here]), match_fields: None };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(BTreeMap::from([(BY.to_owned(), NAME.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            capacity: Some(asked.into_iter().filter(|(name, _)| name == "storage").collect()),
            access_modes: spec.access_modes,
            claim_ref: Some(reference(claim)),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: spec.volume_mode,
            mount_options: class.mount_options.clone(),
            host_path: Some(HostPathVolumeSource {
                path: format!("{ROOT}/{name}_{namespace}_{own}"),
                type_: Some("DirectoryOrCreate".into()),
            }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// Deletes a volume of ours: first the data, by a pod on its node, then the object.
pub async fn take_away(actor: &Actor, volume: &PersistentVolume) -> Result<Next, kube::Error> {
    let ours = volume.metadata.annotations.as_ref().and_then(|all| all.get(BY)).is_some_and(|by| by == NAME);
    let (Some(place), Some(name)) = (place(volume).filter(|_| ours), volume.metadata.name.as_deref()) else {
        return Ok(Next::Done);
    };
    let pods: Api<Pod> = Api::namespaced(actor.client.clone(), HELPERS);
    let helper = format!("helper-pod-delete-{name}");
    match pods.get_opt(&helper).await? {
        None => drop(pods.create(&PostParams::default(), &helper_pod(&helper, &place)).await?),
        Some(pod) if pods::phase(&pod) == "Succeeded" => {
            let _ = pods.delete(&helper, &DeleteParams::default()).await;
            let api: Api<PersistentVolume> = Api::all(actor.client.clone());
            return match api.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Done),
                other => other.map(|_| Next::Done),
            };
        }
        Some(pod) if pods::phase(&pod) == "Failed" => {
            actor.warning(volume, "VolumeFailedDelete", "the helper pod could not delete the volume's data");
            pods.delete(&helper, &DeleteParams::default()).await?;
        }
        Some(_) => {}
    }
    Ok(Next::Soon)
}

/// A volume's node and directory.
fn place(volume: &PersistentVolume) -> Option<(String, String)> {
    let spec = volume.spec.as_ref()?;
    let path = spec.host_path.as_ref()?.path.strip_prefix(ROOT)?.trim_start_matches('/').to_owned();
    let terms = &spec.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let node = terms.first()?.match_expressions.as_ref()?.first()?.values.as_ref()?.first()?.clone();
    (!path.is_empty() && !path.contains('/') && !path.starts_with('.')).then_some((node, path))
}

fn helper_pod(name: &str, (node, directory): &(String, String)) -> Pod {
    let pod = json!({
        "metadata": {"name": name, "namespace": HELPERS},
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "helper", "image": "minilab/toolbox",
                "command": ["rm", "-rf", format!("/volumes/{directory}")],
                "volumeMounts": [{"name": "volumes", "mountPath": "/volumes"}]}],
            "volumes": [{"name": "volumes", "hostPath": {"path": ROOT, "type": "DirectoryOrCreate"}}],
        },
    });
    serde_json::from_value(pod).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_says_where_it_is_and_only_such_a_place_is_emptied() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "data", "namespace": "a", "uid": "1-2"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}))
        .unwrap();
        let class: StorageClass =
            serde_json::from_value(json!({"metadata": {"name": "standard"}, "provisioner": NAME})).unwrap();
        let mut made = volume(&claim, &class, "node-2");
        assert_eq!(place(&made), Some(("node-2".into(), "pvc-1-2_a_data".into())));
        made.spec.as_mut().unwrap().host_path.as_mut().unwrap().path = format!("{ROOT}/../etc");
        assert_eq!(place(&made), None);
    }
}
