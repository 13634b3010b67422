//! A deployment's ReplicaSets: which is the new one, their revisions, and how they are made and resized.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::super::{hash, ownership, pods};
use super::rolling::{self, DESIRED, MAX, limits, size, wanted};
use crate::control::controllers::world::{Actor, World};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const HASH: &str = "pod-template-hash";
/// Annotations of a deployment that are not its sets'.
const OWN: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// A deployment's sets: the one of its template, if any, and the others, oldest first.
pub struct Sets {
    pub new: Option<ReplicaSet>,
    pub old: Vec<ReplicaSet>,
}

impl Sets {
    pub fn sort(deployment: &Deployment, mut all: Vec<ReplicaSet>) -> Self {
        all.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone()));
        let template = deployment.spec.as_ref().map(|spec| without_hash(&spec.template));
        let fits = |set: &ReplicaSet| {
            set.spec.as_ref().and_then(|spec| spec.template.as_ref()).map(without_hash) == template
        };
        // Two may fit after a race: the older one is it, for good.
        let new = all.iter().position(fits).map(|at| all.remove(at));
        Self { new, old: all }
    }

    pub fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = template.metadata.as_mut() {
        if let Some(labels) = meta.labels.as_mut() {
            labels.remove(HASH);
        }
        meta.labels = meta.labels.take().filter(|labels| !labels.is_empty());
    }
    template.metadata = template.metadata.filter(|meta| *meta != ObjectMeta::default());
    template
}

pub fn revision(set: &ReplicaSet) -> i64 {
    let text = set.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The revision the newest template has or gets.
pub fn next_revision(sets: &Sets) -> i64 {
    sets.old.iter().map(revision).max().unwrap_or(0) + 1
}

/// The annotations the new set should have: the deployment's own, the revision, the sizes.
fn annotations(deployment: &Deployment, set: &ReplicaSet, next: i64) -> BTreeMap<String, String> {
    let mut all = set.metadata.annotations.clone().unwrap_or_default();
    let own =
        deployment.metadata.annotations.iter().flatten().filter(|(key, _)| !OWN.contains(&key.as_str()));
    all.extend(own.map(|(key, text)| (key.clone(), text.clone())));
    let before = revision(set);
    if before < next {
        all.insert(REVISION.into(), next.to_string());
        // An old template that came back remembers what it was called.
        if before > 0 {
            let history = all.entry(REVISION_HISTORY.into()).or_default();
            *history = if history.is_empty() { before.to_string() } else { format!("{history},{before}") };
        }
    }
    all.entry(DESIRED.into()).or_insert_with(|| wanted(deployment).to_string());
    all.entry(MAX.into()).or_insert_with(|| (wanted(deployment) + limits(deployment).0).to_string());
    all
}

/// A set for the deployment's template, with its first size.
fn make(deployment: &Deployment, sets: &Sets) -> ReplicaSet {
    let spec = rolling::spec(deployment);
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash::of_template(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: deployment.metadata.name.as_ref().map(|name| format!("{name}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![ownership::reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    let first = rolling::new_size(deployment, &set, &sets.old);
    set.spec.get_or_insert_default().replicas = Some(first);
    set.metadata.annotations = Some(annotations(deployment, &set, next_revision(sets)));
    set
}

/// How making the new set ended.
pub enum Made {
    Set(Box<ReplicaSet>),
    /// Its name is taken by a set of another template: the hash needs another salt.
    Collision,
}

fn api(actor: &Actor, deployment: &Deployment) -> Api<ReplicaSet> {
    Api::namespaced(actor.client.clone(), deployment.metadata.namespace.as_deref().unwrap_or_default())
}

/// Makes the new set and says so.
pub async fn create(
    world: &World,
    actor: &Actor,
    deployment: &Deployment,
    sets: &Sets,
) -> Result<Made, kube::Error> {
    let wanted = make(deployment, sets);
    let name = wanted.metadata.name.clone().unwrap_or_default();
    match api(actor, deployment).create(&PostParams::default(), &wanted).await {
        Ok(made) => {
            world.replica_sets.learn(made.clone());
            if size(&made) > 0 {
                say_scaled(actor, deployment, &name, 0, size(&made));
            }
            Ok(Made::Set(Box::new(made)))
        }
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            let known = api(actor, deployment).get(&name).await?;
            let mine = ownership::is_controlled_by(&known.metadata, deployment.metadata.uid.as_deref());
            let same = Sets::sort(deployment, vec![known.clone()]).new.is_some();
            if mine && same {
                world.replica_sets.learn(known.clone());
                return Ok(Made::Set(Box::new(known)));
            }
            Ok(Made::Collision)
        }
        Err(error) => {
            actor.warning(
                deployment,
                "ReplicaSetCreateError",
                &format!("Failed to create new replica set {name:?}: {}", pods::text(&error)),
            );
            Err(error)
        }
    }
}

/// Brings the new set's annotations and minReadySeconds up to date.
pub async fn refresh(
    world: &World,
    actor: &Actor,
    deployment: &Deployment,
    sets: &Sets,
    set: ReplicaSet,
) -> Result<ReplicaSet, kube::Error> {
    let mut changed = set.clone();
    changed.metadata.annotations = Some(annotations(deployment, &set, next_revision(sets)));
    changed.spec.get_or_insert_default().min_ready_seconds = rolling::spec(deployment).min_ready_seconds;
    if changed == set {
        return Ok(set);
    }
    write(world, actor, deployment, changed).await
}

async fn write(
    world: &World,
    actor: &Actor,
    deployment: &Deployment,
    set: ReplicaSet,
) -> Result<ReplicaSet, kube::Error> {
    let name = set.metadata.name.clone().unwrap_or_default();
    let written = api(actor, deployment).replace(&name, &PostParams::default(), &set).await?;
    world.replica_sets.learn(written.clone());
    Ok(written)
}

/// Resizes a set, keeps its notes of the deployment's size, and says so. `false` = its size stays.
pub async fn resize(
    world: &World,
    actor: &Actor,
    deployment: &Deployment,
    set: &mut ReplicaSet,
    to: i32,
) -> Result<bool, kube::Error> {
    let from = size(set);
    let notes = [
        (DESIRED.to_owned(), wanted(deployment).to_string()),
        (MAX.to_owned(), (wanted(deployment) + limits(deployment).0).to_string()),
    ];
    let mut changed = set.clone();
    changed.metadata.annotations.get_or_insert_default().extend(notes);
    changed.spec.get_or_insert_default().replicas = Some(to);
    if changed == *set {
        return Ok(false);
    }
    *set = write(world, actor, deployment, changed).await?;
    if from != to {
        say_scaled(actor, deployment, set.metadata.name.as_deref().unwrap_or_default(), from, to);
    }
    Ok(from != to)
}

fn say_scaled(actor: &Actor, deployment: &Deployment, name: &str, from: i32, to: i32) {
    let direction = if from < to { "up" } else { "down" };
    actor.normal(
        deployment,
        "ScalingReplicaSet",
        &format!("Scaled {direction} replica set {name} from {from} to {to}"),
    );
}

#[cfg(test)]
mod tests {
    use super::super::rolling::tests::deployment;
    use super::*;

    #[test]
    fn the_set_made_for_a_template_is_found_again_by_it() {
        let web = deployment(3, "25%", "25%");
        let none = Sets { new: None, old: Vec::new() };
        let made = make(&web, &none);
        assert_eq!(size(&made), 3);
        assert_eq!((revision(&made), made.metadata.annotations.as_ref().unwrap()[MAX].as_str()), (1, "4"));
        let hash = made.metadata.labels.as_ref().unwrap()[HASH].clone();
        assert_eq!(made.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
        let sets = Sets::sort(&web, vec![made]);
        assert!(sets.new.is_some() && sets.old.is_empty());
    }

    #[test]
    fn a_template_that_comes_back_gets_a_new_revision_and_remembers_the_old() {
        let web = deployment(3, "25%", "25%");
        let mut first = make(&web, &Sets { new: None, old: Vec::new() });
        let notes = annotations(&web, &first, 3);
        assert_eq!((notes[REVISION].as_str(), notes[REVISION_HISTORY].as_str()), ("3", "1"));
        first.metadata.annotations = Some(notes);
        assert_eq!(annotations(&web, &first, 5)[REVISION_HISTORY], "1,3");
    }
}
