//! The kubelet's five pages of metrics, under upstream's names.
//!
//! Each value is counted or measured here; families that would always be empty are left out.

mod cadvisor;
mod requests;
mod resource;

use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::Kubelet;
use super::health;
use super::routes::Family;
use crate::node::page::{self, Page};
use crate::node::shim::{ContainerPhase, ContainerStatus};
pub use requests::Requests;

pub async fn answer(me: &Kubelet, family: Family) -> Response {
    let page = match family {
        Family::Kubelet => kubelet(me),
        Family::Cadvisor => cadvisor::page(me).await,
        Family::Resource => resource::page(me).await,
        Family::Probes => probes(me),
        Family::Slis => health::slis(me),
    };
    page.into_response()
}

/// Seconds since 1970 at which a container started.
fn started(status: &ContainerStatus) -> f64 {
    let time = status.started_at.as_deref().unwrap_or(&status.created_at);
    time.parse::<Timestamp>().map_or(0.0, |time| time.as_duration().as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are floats")]
fn float(number: u64) -> f64 {
    number as f64
}

fn kubelet(me: &Kubelet) -> Page {
    let mut page = Page::default();
    certificates(me, &mut page);
    let desired = me.pods.list().len();
    let help = "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from \
                the apiserver.";
    page.family("kubelet_desired_pods", "gauge", help);
    let fixed = me.pods.list().iter().filter(|pod| super::super::pods::is_static(pod)).count();
    page.sample("kubelet_desired_pods", &[("static", "")], desired - fixed);
    page.sample("kubelet_desired_pods", &[("static", "true")], fixed);
    me.requests.write(&mut page);
    let help = "[ALPHA] The node's name. The count is always 1.";
    page.family("kubelet_node_name", "gauge", help);
    page.sample("kubelet_node_name", &[("node", &me.config.node_name)], 1);
    running(me, &mut page);
    let name = "kubelet_websocket_streaming_requests_total";
    page.family(
        name,
        "counter",
        "[ALPHA] Total number of WebSocket streaming requests (exec/attach/portforward) received by the kubelet.",
    );
    for (kind, count) in me.streaming.counts() {
        page.sample(name, &[("subresource", kind)], count);
    }
    page::build(&mut page, super::VERSION);
    let name = "kubernetes_feature_enabled";
    page.family(
        name,
        "gauge",
        "[BETA] This metric records the data about the stage and enablement of a k8s feature.",
    );
    for (gate, on) in me.config.gates.all() {
        page.sample(name, &[("name", gate)], u8::from(on));
    }
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let help = "Tasks of the runtime that are alive, as go_goroutines says it of upstream.";
    page.single("minilab_tasks", "gauge", help, tasks);
    page::process(&mut page);
    page
}

fn running(me: &Kubelet, page: &mut Page) {
    let sandboxes = me.runtime.known_sandboxes();
    let count = |phase: ContainerPhase| {
        sandboxes.iter().flat_map(|sandbox| &sandbox.containers).filter(|one| one.phase == phase).count()
    };
    let name = "kubelet_running_containers";
    page.family(name, "gauge", "[ALPHA] Number of containers currently running");
    page.sample(name, &[("container_state", "created")], count(ContainerPhase::Created));
    page.sample(name, &[("container_state", "exited")], count(ContainerPhase::Exited));
    page.sample(name, &[("container_state", "running")], count(ContainerPhase::Running));
    let ready = sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    page.single(
        "kubelet_running_pods",
        "gauge",
        "[ALPHA] Number of pods that have a running pod sandbox",
        ready,
    );
}

/// How long the kubelet's certificates last, and how often a renewal failed.
fn certificates(me: &Kubelet, page: &mut Page) {
    let now = Timestamp::now().as_second();
    let left = |end: Option<u64>| match end.and_then(|end| i64::try_from(end).ok()) {
        Some(end) => (end - now).to_string(),
        None => "+Inf".to_owned(),
    };
    page.single(
        "kubelet_certificate_manager_client_expiration_renew_errors",
        "counter",
        "[ALPHA] Counter of certificate renewal errors.",
        me.credentials.client_errors(),
    );
    page.single(
        "kubelet_certificate_manager_client_ttl_seconds",
        "gauge",
        "[ALPHA] Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until \
         certificate expiry (negative if already expired). If client certificate is invalid or unused, the value will \
         be +INF.",
        left(me.credentials.client_end(&me.config)),
    );
    page.single(
        "kubelet_certificate_manager_server_ttl_seconds",
        "gauge",
        "[ALPHA] Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate. The value is in seconds \
         until certificate expiry (negative if already expired). If serving certificate is invalid or unused, the value \
         will be +INF.",
        left(me.credentials.serving_end()),
    );
    page.single(
        "kubelet_server_expiration_renew_errors",
        "counter",
        "[ALPHA] Counter of certificate renewal errors.",
        me.credentials.serving_errors(),
    );
}

fn probes(me: &Kubelet) -> Page {
    let mut page = Page::default();
    let help = "Start time of the process since unix epoch in seconds.";
    let started = me.started.as_duration().as_secs_f64();
    page.single("process_start_time_seconds", "gauge", help, started);
    let name = "prober_probe_total";
    let help =
        "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
    page.family(name, "counter", help);
    for (series, count) in me.pods.probes().all() {
        let labels = [
            ("container", series.container.as_str()),
            ("namespace", series.namespace.as_str()),
            ("pod", series.pod.as_str()),
            ("pod_uid", series.uid.as_str()),
            ("probe_type", series.kind),
            ("result", series.result),
        ];
        page.sample(name, &labels, count);
    }
    page
}
