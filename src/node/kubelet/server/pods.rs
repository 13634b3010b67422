//! `/pods`, what the API wants here, and `/runningpods/`, what the runtime holds.

use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::Kubelet;
use super::call;
use crate::node::shim::ContainerPhase;

/// `PodList` of what the API wants here, with this kubelet's view of their status.
pub fn desired(me: &Kubelet) -> Response {
    list(me.pods.list_with_status().iter().map(item).collect())
}

/// `PodList` of what runs here, as the runtime sees it.
pub fn running(me: &Kubelet) -> Response {
    let sandboxes = me.runtime.known_sandboxes();
    let ready = sandboxes.iter().filter(|sandbox| sandbox.ready).map(|sandbox| {
        let running = sandbox.containers.iter().filter(|one| one.phase == ContainerPhase::Running);
        let containers: Vec<Value> =
            running.map(|one| json!({"name": one.name, "image": one.image_id, "resources": {}})).collect();
        json!({
            "metadata": {
                "name": sandbox.spec.pod_name,
                "namespace": sandbox.spec.pod_namespace,
                "uid": sandbox.spec.pod_uid,
            },
            "spec": {"containers": containers},
            "status": {},
        })
    });
    list(ready.collect())
}

fn list(items: Vec<Value>) -> Response {
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    call::json(list.to_string() + "\n")
}

/// Items of a list have no kind of their own.
fn item(pod: &Pod) -> Value {
    let mut value = serde_json::to_value(pod).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    value
}
