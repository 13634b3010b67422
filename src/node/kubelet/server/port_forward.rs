//! `/portForward/NAMESPACE/POD[/UID]`: connections to a pod's ports, from inside its network namespace.

use axum::http::StatusCode;
use axum::response::Response;

use super::Kubelet;
use super::call::{Call, text};
use super::streaming::{self, Task};
use crate::stream::portforward::{Target, negotiate};

pub async fn port_forward(me: &Kubelet, call: Call, below: &[String]) -> Response {
    let (namespace, name, uid) = match below {
        [namespace, name] => (namespace, name, None),
        [namespace, name, uid] => (namespace, name, Some(uid)),
        _ => return text(StatusCode::NOT_FOUND, "404: Page Not Found"),
    };
    let pod = match streaming::pod(me, namespace, name) {
        Ok(pod) => pod,
        Err(refused) => return refused,
    };
    let own = pod.metadata.uid.clone().unwrap_or_default();
    if uid.is_some_and(|uid| *uid != own) {
        return text(StatusCode::NOT_FOUND, "pod not found");
    }
    let sandboxes = me.runtime.of_pod(&own);
    let Some(sandbox) = sandboxes.iter().rev().find(|sandbox| sandbox.ready) else {
        let body = format!("pod not found ({:?})", format!("{name}_{namespace}"));
        return text(StatusCode::INTERNAL_SERVER_ERROR, body);
    };
    me.streaming.note("portforward", &call.parts);
    let (runtime, sandbox, idle) = (me.runtime.clone(), sandbox.id.clone(), me.config.stream_idle);
    let negotiate = |parts: &_| negotiate(parts).map(|chosen| (chosen.response(), chosen));
    streaming::upgrade(me, call, negotiate, move |io, chosen| {
        Task::new(async move {
            let target = Target { pod: sandbox.clone(), uid: String::new() };
            let connect = move |port: u16| {
                let (runtime, sandbox) = (runtime.clone(), sandbox.clone());
                async move { runtime.connect(&sandbox, port).await }
            };
            if let Err(error) = chosen.idle(idle).serve(io, target, connect).await {
                tracing::debug!(%error, "a port-forward session ended");
            }
        })
    })
}
