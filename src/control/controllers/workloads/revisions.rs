//! What a template was before: ControllerRevisions, as `kubectl rollout history` and `undo` read them.

use std::rc::Rc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::{Value, json};

use super::{hash, ownership};
use crate::control::controllers::world::{Actor, World};

/// Upstream's label; its value is the hash in the name.
const HASH: &str = "controller.kubernetes.io/hash";

/// A revision's content: the patch that brings its template back.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

/// The template a revision keeps.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0["spec"]["template"].clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// An owner's revisions, oldest first.
pub fn owned(world: &World, owner: &ObjectMeta) -> Vec<Rc<ControllerRevision>> {
    let mut all = world.late.revisions.in_namespace(owner.namespace.as_deref().unwrap_or_default());
    all.retain(|one| ownership::is_controlled_by(&one.metadata, owner.uid.as_deref()));
    all.sort_by_key(|one| one.revision);
    all
}

fn api(actor: &Actor, owner: &ObjectMeta) -> Api<ControllerRevision> {
    Api::namespaced(actor.client.clone(), owner.namespace.as_deref().unwrap_or_default())
}

/// The revision of this template, made if it is new and the newest again if it came back.
pub async fn ensure<O: Resource<DynamicType = ()>>(
    world: &World,
    actor: &Actor,
    owner: &O,
    template: &PodTemplateSpec,
    collisions: Option<i32>,
) -> Result<ControllerRevision, kube::Error> {
    let (meta, wanted) = (owner.meta(), data(template));
    let all = owned(world, meta);
    let next = all.last().map_or(0, |one| one.revision) + 1;
    if let Some(known) = all.iter().rfind(|one| one.data.as_ref().is_some_and(|data| data.0 == wanted)) {
        if known.revision + 1 == next {
            return Ok((**known).clone());
        }
        let name = known.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(json!({"revision": next}));
        let moved = api(actor, meta).patch(name, &PatchParams::default(), &patch).await?;
        world.late.revisions.learn(moved.clone());
        return Ok(moved);
    }
    let hash = hash::of_template(template, collisions);
    let mut labels = template.metadata.as_ref().and_then(|own| own.labels.clone()).unwrap_or_default();
    labels.insert(HASH.into(), hash.clone());
    let new = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or_default())),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![ownership::reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(wanted)),
        revision: next,
    };
    let made = match api(actor, meta).create(&PostParams::default(), &new).await {
        // Ours from a moment ago, that the watch has not shown yet.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            api(actor, meta).get(new.metadata.name.as_deref().unwrap_or_default()).await?
        }
        other => other?,
    };
    world.late.revisions.learn(made.clone());
    Ok(made)
}

/// Forgets the oldest that nobody lives by, beyond the limit.
pub async fn truncate(
    world: &World,
    actor: &Actor,
    owner: &ObjectMeta,
    live: &[String],
    limit: Option<i32>,
) -> Result<(), kube::Error> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let mut history = owned(world, owner);
    history.retain(|one| !one.metadata.name.as_ref().is_some_and(|name| live.contains(name)));
    let surplus = history.len().saturating_sub(limit);
    for old in history.into_iter().take(surplus) {
        let name = old.metadata.name.as_deref().unwrap_or_default();
        match api(actor, owner).delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_gives_its_template_back() {
        let of: PodTemplateSpec =
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
        let revision = ControllerRevision { data: Some(RawExtension(data(&of))), ..Default::default() };
        assert_eq!(template(&revision), Some(of));
        assert_eq!(revision.data.unwrap().0["spec"]["template"]["$patch"], "replace");
    }
}
