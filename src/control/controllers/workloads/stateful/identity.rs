//! Who a StatefulSet's pod is: its name, its claims, its labels.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};

use super::super::{ownership, pods};

pub const REVISION: &str = "controller-revision-hash";
const NAME: &str = "statefulset.kubernetes.io/pod-name";
const INDEX: &str = "apps.kubernetes.io/pod-index";

/// A pod's place in the order, read from its name.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (parent, ordinal) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    (Some(parent) == set.metadata.name.as_deref()).then(|| ordinal.parse().ok()).flatten()
}

pub fn revision(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION).map(String::as_str)
}

fn claim_name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    let own = template.metadata.name.as_deref().unwrap_or_default();
    format!("{own}-{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

/// The claims of one pod; where they go with the set, it owns them.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let spec = set.spec.clone().unwrap_or_default();
    let policy = spec.persistent_volume_claim_retention_policy.unwrap_or_default();
    let goes = policy.when_deleted.as_deref() == Some("Delete");
    let one = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, template, ordinal));
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
        claim.metadata.owner_references = goes.then(|| vec![ownership::reference(set)]);
        claim.status = None;
        claim
    };
    templates(set).iter().map(one).collect()
}

/// The pod of one ordinal.
pub fn pod(set: &StatefulSet, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let name = format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default());
    let mut pod = pods::from_template(template, namespace, ownership::reference(set));
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME.into(), name.clone());
    labels.insert(INDEX.into(), ordinal.to_string());
    labels.insert(REVISION.into(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|service| !service.is_empty());
    // A claim template wins over a volume of the same name.
    let volumes = spec.volumes.get_or_insert_default();
    for template in templates(set) {
        let own = template.metadata.name.clone().unwrap_or_default();
        volumes.retain(|volume| volume.name != own);
        volumes.push(Volume {
            name: own,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name(set, template, ordinal),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    pod
}
