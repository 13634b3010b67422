//! One container's status: its state now, its last state, its count of restarts.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::step::Plan;
use super::view::{Instance, View, is_sidecar, time};
use crate::node::shim;

/// Which of the pod's lists a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Init,
    Main,
    Ephemeral,
}

/// `minilab://ID`, after the runtime's name in the node's status.
pub fn container_id(id: &str) -> String {
    format!("minilab://{id}")
}

pub fn container_status(
    view: &View<'_>,
    plan: &Plan,
    container: &Container,
    kind: Kind,
    old: Option<ContainerStatus>,
) -> ContainerStatus {
    let latest = view.latest(&container.name);
    let Some(instance) = latest else { return unborn(view, plan, container, kind, old) };
    let running = instance.running();
    let waiting = plan.waiting.get(&container.name).filter(|_| !running);
    let ended = (!running).then(|| terminated(view, &instance));
    let (state, last_state) = match (waiting, ended) {
        (Some(waiting), Some(ended)) => {
            let waiting = ContainerStateWaiting {
                reason: Some(waiting.reason.into()),
                message: Some(waiting.message.clone()),
            };
            (ContainerState { waiting: Some(waiting), ..ContainerState::default() }, Some(ended))
        }
        (None, Some(ended)) => (of_terminated(ended), previous(view, &instance, old.as_ref())),
        (_, None) => {
            let started_at = instance.container.started_at.as_deref().and_then(time).map(Time);
            let running = ContainerStateRunning { started_at };
            let state = ContainerState { running: Some(running), ..ContainerState::default() };
            (state, previous(view, &instance, old.as_ref()))
        }
    };
    let started = running && view.started(container);
    ContainerStatus {
        name: container.name.clone(),
        state: Some(state),
        last_state: Some(last_state.map(of_terminated).unwrap_or_default()),
        ready: match (kind, is_sidecar(container)) {
            (Kind::Init, false) => instance.succeeded(),
            // Upstream says so of none.
            (Kind::Ephemeral, _) => false,
            _ => started && ready(view, container, &instance),
        },
        started: (kind != Kind::Ephemeral).then_some(started),
        restart_count: i32::try_from(instance.container.attempt).unwrap_or(i32::MAX),
        image: instance.container.image.clone(),
        image_id: instance.container.image_id.clone(),
        container_id: Some(container_id(&instance.container.id)),
        resources: container.resources.clone().filter(|_| running),
        ..ContainerStatus::default()
    }
}

/// A container no shim knows: never started, or its record is gone.
fn unborn(
    view: &View<'_>,
    plan: &Plan,
    container: &Container,
    kind: Kind,
    old: Option<ContainerStatus>,
) -> ContainerStatus {
    // What ended before its record went away stays as it was reported.
    if let Some(old) = &old
        && old.state.as_ref().is_some_and(|state| state.terminated.is_some())
    {
        return old.clone();
    }
    let inits_open = !view.init_containers().is_empty();
    let waiting = match plan.waiting.get(&container.name) {
        Some(waiting) => ContainerStateWaiting {
            reason: Some(waiting.reason.into()),
            message: Some(waiting.message.clone()),
        },
        None => ContainerStateWaiting {
            reason: Some(if inits_open { "PodInitializing" } else { "ContainerCreating" }.into()),
            message: None,
        },
    };
    ContainerStatus {
        name: container.name.clone(),
        state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
        last_state: Some(old.and_then(|old| old.last_state).unwrap_or_default()),
        ready: false,
        started: (kind != Kind::Ephemeral).then_some(false),
        restart_count: i32::try_from(view.next_attempt(&container.name)).unwrap_or(i32::MAX),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        ..ContainerStatus::default()
    }
}

/// Without a readiness probe a container is ready when it has started.
fn ready(view: &View<'_>, container: &Container, instance: &Instance<'_>) -> bool {
    container.readiness_probe.is_none()
        || view.memory.health(&container.name, &instance.container.id).is_some_and(|health| health.ready)
}

/// The instance before this one, from its record or from what was reported.
fn previous(
    view: &View<'_>,
    instance: &Instance<'_>,
    old: Option<&ContainerStatus>,
) -> Option<ContainerStateTerminated> {
    let before = view
        .instances(&instance.container.name)
        .filter(|other| other.container.attempt < instance.container.attempt)
        .max_by_key(|other| other.container.attempt);
    match before {
        Some(before) => Some(terminated(view, &before)),
        None => old?.last_state.as_ref()?.terminated.clone(),
    }
}

fn terminated(view: &View<'_>, instance: &Instance<'_>) -> ContainerStateTerminated {
    let shim::ContainerStatus { id, exit_code, reason, message, started_at, finished_at, .. } =
        instance.container;
    let exit_code = exit_code.unwrap_or(137);
    let stamp = |text: &Option<String>| text.as_deref().and_then(time).map(Time);
    ContainerStateTerminated {
        container_id: Some(container_id(id)),
        exit_code,
        // containerd tells signals by the code alone (128 + number), and so does every kubelet over it.
        signal: None,
        reason: Some(
            reason.clone().unwrap_or_else(|| if exit_code == 0 { "Completed" } else { "Error" }.into()),
        ),
        message: view.memory.messages.get(id).filter(|text| !text.is_empty()).or(message.as_ref()).cloned(),
        started_at: stamp(started_at).or_else(|| stamp(finished_at)),
        finished_at: stamp(finished_at),
    }
}

fn of_terminated(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}
