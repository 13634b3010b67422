//! Small answers: health, the pods of this node, its configuration, a few metrics.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Kubelet;
use crate::node::shim::ContainerPhase;

pub async fn healthz() -> &'static str {
    "ok"
}

pub async fn configz(State(me): State<Kubelet>) -> Json<Value> {
    Json(me.config.configz())
}

/// `PodList` of what the API wants here, with this kubelet's view of their status.
pub async fn pods(State(me): State<Kubelet>) -> Json<Value> {
    let items: Vec<Value> = me.pods.list_with_status().iter().map(item).collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// Items of a list have no kind of their own.
fn item(pod: &k8s_openapi::api::core::v1::Pod) -> Value {
    let mut value = serde_json::to_value(pod).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    value
}

/// `PodList` of what runs here, as the runtime sees it.
pub async fn running_pods(State(me): State<Kubelet>) -> Json<Value> {
    let sandboxes = me.runtime.known_sandboxes();
    let items: Vec<Value> = sandboxes
        .iter()
        .filter(|sandbox| sandbox.ready)
        .map(|sandbox| {
            let running = sandbox.containers.iter().filter(|one| one.phase == ContainerPhase::Running);
            let containers: Vec<Value> = running
                .map(|one| json!({"name": one.name, "image": one.image_id, "resources": {}}))
                .collect();
            json!({
                "metadata": {
                    "name": sandbox.spec.pod_name,
                    "namespace": sandbox.spec.pod_namespace,
                    "uid": sandbox.spec.pod_uid,
                },
                "spec": {"containers": containers},
                "status": {},
            })
        })
        .collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// A few of upstream's metrics, under their names.
pub async fn metrics(State(me): State<Kubelet>) -> Response {
    let sandboxes = me.runtime.known_sandboxes();
    let count = |phase: ContainerPhase| {
        sandboxes.iter().flat_map(|sandbox| &sandbox.containers).filter(|one| one.phase == phase).count()
    };
    let ready = sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let text = format!(
        "# HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n\
         # TYPE kubelet_node_name gauge\n\
         kubelet_node_name{{node=\"{}\"}} 1\n\
         # HELP kubelet_running_containers [ALPHA] Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"created\"}} {}\n\
         kubelet_running_containers{{container_state=\"exited\"}} {}\n\
         kubelet_running_containers{{container_state=\"running\"}} {}\n\
         # HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {ready}\n\
         # HELP kubelet_desired_pods [ALPHA] The number of pods the kubelet is being instructed to run.\n\
         # TYPE kubelet_desired_pods gauge\n\
         kubelet_desired_pods{{static=\"\"}} {}\n",
        me.config.node_name,
        count(ContainerPhase::Created),
        count(ContainerPhase::Exited),
        count(ContainerPhase::Running),
        me.pods.list().len(),
    );
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
