//! Sends a pod's status to the API, in the background, the latest winning; and its events.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::warn;

use super::super::api_text;
use super::static_pods::{is_static, mirror};
use crate::client::Backoff;
use crate::client::events::{Kind, Recorder, reference};

/// One pod's voice.
pub struct Reporter {
    wanted: watch::Sender<Option<Arc<PodStatus>>>,
    sent: watch::Receiver<Option<Arc<PodStatus>>>,
    events: Recorder,
    about: ObjectReference,
}

impl Reporter {
    pub fn new(client: Client, events: Recorder, pod: &Pod) -> Self {
        let (wanted, changes) = watch::channel(None);
        let (done, sent) = watch::channel(None);
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let sender = Sender {
            api: Api::namespaced(client, &namespace),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            mirror: is_static(pod).then(|| mirror(pod)),
        };
        tokio::spawn(sender.run(changes, done));
        Self { wanted, sent, events, about: reference(pod) }
    }

    /// Sends a status unless it is the one sent last.
    pub fn report(&self, status: PodStatus) {
        self.wanted.send_if_modified(|last| {
            let news = last.as_deref() != Some(&status);
            if news {
                *last = Some(Arc::new(status));
            }
            news
        });
    }

    /// Sends the last one once more: the API has lost it, with the object it belonged to.
    pub fn again(&self) {
        self.wanted.send_modify(|_| {});
    }

    /// Waits until the API has what was reported last.
    pub async fn flushed(&self) {
        let last = self.wanted.borrow().clone();
        let mut sent = self.sent.clone();
        // The sender ends only with this reporter, or because the pod is gone: then nothing is left to wait for.
        let _ = sent.wait_for(|sent| *sent == last).await;
    }

    pub fn event(&self, kind: Kind, reason: &str, message: impl Into<String>) {
        self.events.event(&self.about, kind, reason, message);
    }

    /// An event about one container.
    pub fn container_event(&self, path: &str, kind: Kind, reason: &str, message: impl Into<String>) {
        self.voice().container_event(path, kind, reason, message);
    }

    /// What is needed for events alone, to be used from anywhere.
    pub fn voice(&self) -> Voice {
        Voice { events: self.events.clone(), about: self.about.clone() }
    }
}

/// A pod's events, apart from its status.
#[derive(Clone)]
pub struct Voice {
    events: Recorder,
    about: ObjectReference,
}

impl Voice {
    /// An event about one container.
    pub fn container_event(&self, path: &str, kind: Kind, reason: &str, message: impl Into<String>) {
        let about = ObjectReference { field_path: Some(path.into()), ..self.about.clone() };
        self.events.event(&about, kind, reason, message);
    }
}

struct Sender {
    api: Api<Pod>,
    name: String,
    uid: String,
    /// Of a static pod: what the API shows in its place.
    mirror: Option<Pod>,
}

impl Sender {
    async fn run(
        self,
        mut wanted: watch::Receiver<Option<Arc<PodStatus>>>,
        sent: watch::Sender<Option<Arc<PodStatus>>>,
    ) {
        let mut backoff = Backoff::new();
        while wanted.changed().await.is_ok() {
            loop {
                let Some(status) = wanted.borrow_and_update().clone() else { break };
                match self.send(&status).await {
                    Ok(()) => {}
                    Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
                    Err(error) => {
                        warn!(error = api_text(&error), pod = self.name, "Failed to update status for pod");
                        backoff.wait().await;
                        continue;
                    }
                }
                backoff.reset();
                sent.send_replace(Some(status));
                break;
            }
        }
    }

    async fn send(&self, status: &PodStatus) -> Result<(), kube::Error> {
        let change = match &self.mirror {
            Some(_) => json!({"status": patch(status)}),
            None => json!({"metadata": {"uid": self.uid}, "status": patch(status)}),
        };
        let change = Patch::Strategic(change);
        let parameters = PatchParams::default();
        match (self.api.patch_status(&self.name, &parameters, &change).await, &self.mirror) {
            (Err(kube::Error::Api(answer)), Some(mirror)) if answer.code == 404 => {
                self.api.create(&PostParams::default(), mirror).await?;
                self.api.patch_status(&self.name, &parameters, &change).await.map(drop)
            }
            (outcome, _) => outcome.map(drop),
        }
    }
}

/// A patch that also takes away what is no longer so, and keeps the conditions in upstream's order.
fn patch(status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    let Some(fields) = value.as_object_mut() else { return value };
    for optional in
        ["reason", "message", "containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
    {
        fields.entry(optional).or_insert(Value::Null);
    }
    let mut order = Vec::new();
    for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        order.push(json!({"type": condition["type"]}));
        // Conditions are merged by type, so silence would keep an old reason.
        if let Some(condition) = condition.as_object_mut() {
            for optional in ["reason", "message", "lastProbeTime"] {
                condition.entry(optional).or_insert(Value::Null);
            }
        }
    }
    fields.insert("$setElementOrder/conditions".into(), Value::Array(order));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodCondition;

    #[test]
    fn a_patch_takes_back_an_old_reason() {
        let condition =
            PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        let value = patch(&PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() });
        assert_eq!(value["conditions"][0]["reason"], Value::Null);
        assert!(value["conditions"][0].as_object().unwrap().contains_key("message"));
        assert!(value.as_object().unwrap().contains_key("reason"));
        assert_eq!(value["$setElementOrder/conditions"], json!([{"type": "Ready"}]));
    }
}
