//! `POST /checkpoint/NAMESPACE/POD/CONTAINER`: refused, in the words of a runtime without the method.
//!
//! On purpose: a checkpoint needs CRIU, which no lab's machine can be asked to have, and upstream's kubelet
//! answers like this wherever the runtime has none.

use axum::http::StatusCode;
use axum::response::Response;
use k8s_openapi::api::core::v1::Pod;

use super::Kubelet;
use super::call::{Call, text};

pub fn checkpoint(me: &Kubelet, call: &Call, below: &[String]) -> Response {
    let [namespace, pod, container] = below else {
        return text(StatusCode::NOT_FOUND, "404: Page Not Found");
    };
    let Some(found) = me.pods.find_with_status(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, "pod does not exist");
    };
    if !has_container(&found, container) {
        return text(StatusCode::NOT_FOUND, format!("container {container} does not exist"));
    }
    if call.all("timeout").last().is_some_and(|seconds| seconds.parse::<i64>().is_err()) {
        return text(StatusCode::NOT_FOUND, "cannot parse value of timeout parameter");
    }
    let why = "rpc error: code = Unimplemented desc = method CheckpointContainer not implemented";
    let body = format!("checkpointing of {namespace}/{pod}/{container} failed ({why})");
    text(StatusCode::INTERNAL_SERVER_ERROR, body)
}

/// Whether a pod's specification has a container of this name, of any of the three kinds.
pub fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| one.name.as_str());
    plain.map(|one| one.name.as_str()).chain(ephemeral).any(|one| one == name)
}
