//! What the loops ask of a pod, and how they make and delete one.

use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Resource};

use crate::client::informer::key_of;
use crate::control::controllers::world::{Actor, World};

/// A pod's namespace and name.
pub fn place(pod: &Pod) -> (&str, &str) {
    let meta = &pod.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

pub fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor on its way out.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

fn ready(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|one| one.type_ == "Ready" && one.status == "True")
}

pub fn is_ready(pod: &Pod) -> bool {
    ready(pod).is_some()
}

/// How long until a pod has been ready for `min_ready` seconds: zero = available, `None` = not ready.
pub fn available_in(pod: &Pod, min_ready: i32, now: Timestamp) -> Option<Duration> {
    let since = ready(pod)?.last_transition_time.as_ref().map_or(now, |time| time.0);
    let left = i64::from(min_ready) - (now.as_second() - since.as_second());
    Some(if min_ready == 0 { Duration::ZERO } else { Duration::from_secs(u64::try_from(left).unwrap_or(0)) })
}

pub fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> bool {
    available_in(pod, min_ready, now) == Some(Duration::ZERO)
}

/// A pod of this template, owned by `owner`, with a name the API server completes.
pub fn from_template(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(namespace.into()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates one pod for `owner` and says so in its events.
pub async fn create<K>(world: &World, actor: &Actor, owner: &K, pod: &Pod) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()>,
{
    let api: Api<Pod> = Api::namespaced(actor.client.clone(), place(pod).0);
    match api.create(&PostParams::default(), pod).await {
        Ok(made) => {
            actor.normal(owner, "SuccessfulCreate", &format!("Created pod: {}", place(&made).1));
            world.pods.learn(made);
            Ok(())
        }
        Err(error) => {
            // In a namespace that is going away nothing is wrong.
            let ending =
                matches!(&error, kube::Error::Api(status) if status.message.contains("being terminated"));
            if !ending {
                actor.warning(owner, "FailedCreate", &format!("Error creating: {}", text(&error)));
            }
            Err(error)
        }
    }
}

/// Creates many: one first, then twice as many each round, so that a refusal is met once, not `n` times.
pub async fn create_many<K>(world: &World, actor: &Actor, owner: &K, pods: &[Pod]) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()>,
{
    let (mut rest, mut batch) = (pods, 1);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(batch.min(rest.len()));
        let outcomes = join_all(now.iter().map(|pod| create(world, actor, owner, pod))).await;
        outcomes.into_iter().collect::<Result<Vec<()>, _>>()?;
        (rest, batch) = (later, batch * 2);
    }
    Ok(())
}

/// Deletes one pod of `owner` and says so in its events. Already gone is fine.
pub async fn delete<K>(world: &World, actor: &Actor, owner: &K, pod: &Pod) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()>,
{
    let (namespace, name) = place(pod);
    let api: Api<Pod> = Api::namespaced(actor.client.clone(), namespace);
    let uid = pod.metadata.uid.clone();
    let only_this = Preconditions { uid: uid.clone(), resource_version: None };
    match api.delete(name, &DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() }).await
    {
        Ok(_) => actor.normal(owner, "SuccessfulDelete", &format!("Deleted pod: {name}")),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => {
            actor.warning(owner, "FailedDelete", &format!("Error deleting: {}", text(&error)));
            return Err(error);
        }
    }
    world.pods.leaving(&key_of(pod), uid.as_deref());
    Ok(())
}

/// An API error as events quote it.
pub fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::json;

    /// A running pod, ready since `since`, if at all.
    pub fn pod(name: &str, phase: &str, since: Option<i64>) -> Pod {
        let ready = since.map(|since| {
            let since = Timestamp::from_second(since).unwrap().to_string();
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}])
        });
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"containers": [], "nodeName": "node-1"},
            "status": {"phase": phase, "conditions": ready},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_available_once_it_was_ready_long_enough() {
        let now = Timestamp::from_second(100).unwrap();
        assert!(is_available(&pod("a", "Running", Some(95)), 0, now));
        assert!(is_available(&pod("a", "Running", Some(95)), 5, now));
        assert_eq!(available_in(&pod("a", "Running", Some(95)), 20, now), Some(Duration::from_secs(15)));
        assert_eq!(available_in(&pod("a", "Running", None), 0, now), None);
    }
}
