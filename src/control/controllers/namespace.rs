//! Namespaces: empties one that was deleted, then lets it go.
//!
//! Everything of every namespaced kind the API server knows is deleted; what takes its time (pods and
//! their grace, finalizers) is waited for. The conditions say how far it got, in upstream's words.

use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, try_join_all};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Resource};
use tracing::info;

use super::discovered::{Discovered, kinds};
use super::queue::{Next, Queue};
use super::world::{Actor, World};
use crate::client::informer::key_of;

/// The finalizer of a namespace's spec that this loop takes away.
const FINALIZER: &str = "kubernetes";

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new.filter(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
            fed.add(key_of(&**namespace));
        }
    });
    // Pods are what takes longest: the last one's end is the moment to look again.
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let Some(name) = old.filter(|_| new.is_none()).and_then(|pod| pod.metadata.namespace.clone()) else {
            return;
        };
        if seen.namespaces.get(&name).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            fed.add(name);
        }
    });
    let actor = world.actor("namespace-controller", "namespace-controller");
    let world = world.clone();
    Box::pin(async move { queue.work("namespace", 4, |name| sync(&world, &actor, name)).await })
}

/// What is left of one kind.
struct Left {
    kind: Discovered,
    count: usize,
    finalizers: Vec<String>,
}

async fn sync(world: &World, actor: &Actor, name: String) -> Result<Next, kube::Error> {
    let Some(namespace) = world.namespaces.get(&name) else { return Ok(Next::Done) };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
    if namespace.metadata.deletion_timestamp.is_none() || !finalizers.iter().any(|one| one == FINALIZER) {
        return Ok(Next::Done);
    }
    let all = kinds(&actor.client).await?;
    let emptied = all.into_iter().filter(|kind| kind.namespaced && kind.can("delete") && kind.can("list"));
    let left: Vec<Left> = try_join_all(emptied.map(|kind| empty(actor, &name, kind))).await?;
    let left: Vec<Left> = left.into_iter().filter(|left| left.count > 0).collect();
    let api: Api<Namespace> = Api::all(actor.client.clone());
    if !left.is_empty() {
        report(&api, &namespace, conditions(&left, Timestamp::now())).await?;
        return Ok(Next::Soon);
    }
    let mut free = (*namespace).clone();
    free.spec.get_or_insert_default().finalizers =
        Some(finalizers.iter().filter(|one| *one != FINALIZER).cloned().collect());
    match api.replace_subresource::<Namespace>("finalize", &name, &PostParams::default(), &free).await {
        Ok(_) => info!(namespace = name, "emptied and finalized"),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(Next::Done)
}

/// Deletes everything of one kind in a namespace and says what is still there.
async fn empty(actor: &Actor, namespace: &str, kind: Discovered) -> Result<Left, kube::Error> {
    let api: Api<PartialObjectMeta<DynamicObject>> =
        Api::namespaced_with(actor.client.clone(), namespace, &kind.resource);
    let present = api.list(&ListParams::default()).await?.items;
    if present.is_empty() {
        return Ok(Left { kind, count: 0, finalizers: Vec::new() });
    }
    for object in present.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let dynamic: Api<DynamicObject> =
            Api::namespaced_with(actor.client.clone(), namespace, &kind.resource);
        match dynamic.delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405 | 409) => {}
            other => other.map(drop)?,
        }
    }
    let left = api.list(&ListParams::default()).await?.items;
    let finalizers =
        left.iter().flat_map(|object| object.meta().finalizers.clone().unwrap_or_default()).collect();
    Ok(Left { kind, count: left.len(), finalizers })
}

/// What the namespace's status says while something is left.
fn conditions(left: &[Left], now: Timestamp) -> Vec<NamespaceCondition> {
    let condition = |type_: &str, bad: bool, reason: &str, message: String| NamespaceCondition {
        type_: type_.into(),
        status: if bad { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(Time(now)),
    };
    let dotted = |kind: &Discovered| format!("{}.{}", kind.resource.plural, kind.resource.group);
    let mut remaining: Vec<String> = left
        .iter()
        .map(|left| format!("{} has {} resource instances", dotted(&left.kind), left.count))
        .collect();
    remaining.sort();
    let mut waiting = std::collections::BTreeMap::<&str, usize>::new();
    left.iter().flat_map(|left| &left.finalizers).for_each(|name| *waiting.entry(name).or_default() += 1);
    let waiting: Vec<String> =
        waiting.into_iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let finalizers = match waiting.is_empty() {
        true => ("ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
        false => {
            let text =
                format!("Some content in the namespace has finalizers remaining: {}", waiting.join(", "));
            ("SomeFinalizersRemain", text)
        }
    };
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".into(),
        ),
        condition(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", remaining.join(", ")),
        ),
        condition("NamespaceFinalizersRemaining", !waiting.is_empty(), finalizers.0, finalizers.1),
    ]
}

async fn report(
    api: &Api<Namespace>,
    namespace: &Namespace,
    wanted: Vec<NamespaceCondition>,
) -> Result<(), kube::Error> {
    let known = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let same = |one: &NamespaceCondition| {
        known
            .iter()
            .any(|old| (&old.type_, &old.status, &old.message) == (&one.type_, &one.status, &one.message))
    };
    if wanted.iter().all(same) {
        return Ok(());
    }
    let mut changed = namespace.clone();
    changed.status.get_or_insert_default().conditions = Some(wanted);
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), &changed).await {
        // Somebody wrote it meanwhile: the next look says it again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::ApiResource;

    #[test]
    fn what_remains_is_said_in_upstreams_words() {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".into(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            plural: "pods".into(),
        };
        let kind = Discovered { resource, namespaced: true, verbs: Vec::new() };
        let left = [Left { kind, count: 2, finalizers: vec!["x/y".into(), "x/y".into()] }];
        let all = conditions(&left, Timestamp::UNIX_EPOCH);
        let message = |at: usize| all[at].message.clone().unwrap();
        assert_eq!(message(3), "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            message(4),
            "Some content in the namespace has finalizers remaining: x/y in 2 resource instances"
        );
    }
}
