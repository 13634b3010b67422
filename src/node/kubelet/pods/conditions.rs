//! A pod's conditions, with upstream's reasons and messages.

use k8s_openapi::api::core::v1::{Container, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::status::condition;
use super::view::{View, is_sidecar};

/// A condition's status: true, or false for a reason.
type Verdict = Result<Option<&'static str>, (&'static str, String)>;

/// The five conditions of every pod, and what others have set.
pub fn conditions(view: &View<'_>, status: &PodStatus, before: &PodStatus) -> Vec<PodCondition> {
    let containers_ready = containers_ready(view, status);
    let sandboxed = view.current().is_some_and(|sandbox| sandbox.ready);
    let mut list = vec![
        make(
            view,
            before,
            "PodReadyToStartContainers",
            if sandboxed { Ok(None) } else { Err(("", String::new())) },
        ),
        make(view, before, "Initialized", initialized(view, status)),
        make(view, before, "Ready", ready(view, &containers_ready)),
        make(view, before, "ContainersReady", containers_ready),
    ];
    list.push(match condition(&before.conditions, "PodScheduled") {
        Some(scheduled) => scheduled.clone(),
        None => make(view, before, "PodScheduled", Ok(None)),
    });
    list
}

fn make(view: &View<'_>, before: &PodStatus, kind: &str, verdict: Verdict) -> PodCondition {
    let (status, reason, message) = match verdict {
        Ok(reason) => ("True", reason.map(str::to_owned), None),
        Err((reason, message)) => {
            let set = |text: String| (!text.is_empty()).then_some(text);
            ("False", set(reason.into()), set(message))
        }
    };
    let old = condition(&before.conditions, kind).filter(|old| old.status == status);
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason,
        message,
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(view.now))),
        last_probe_time: None,
        observed_generation: view.pod.metadata.generation,
    }
}

fn initialized(view: &View<'_>, status: &PodStatus) -> Verdict {
    if status.phase.as_deref() == Some("Succeeded") {
        return Ok(Some("PodCompleted"));
    }
    let open = |init: &&Container| match is_sidecar(init) {
        true => !view.started(init),
        false => !view.latest_here(&init.name).is_some_and(|instance| instance.succeeded()),
    };
    let open: Vec<&str> = match view.initialized() {
        true => Vec::new(),
        false => view.init_containers().iter().filter(open).map(|init| init.name.as_str()).collect(),
    };
    if open.is_empty() {
        return Ok(None);
    }
    Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", open.join(" "))))
}

fn containers_ready(view: &View<'_>, status: &PodStatus) -> Verdict {
    match status.phase.as_deref() {
        Some("Succeeded") => return Err(("PodCompleted", String::new())),
        Some("Failed") => return Err(("PodFailed", String::new())),
        _ => {}
    }
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let known: Vec<_> = all.collect();
    let mut unready = Vec::new();
    let counted =
        view.init_containers().iter().filter(|init| is_sidecar(init)).chain(&view.spec().containers);
    for container in counted {
        if !known.iter().any(|status| status.name == container.name && status.ready) {
            unready.push(container.name.as_str());
        }
    }
    if unready.is_empty() {
        return Ok(None);
    }
    Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
}

fn ready(view: &View<'_>, containers: &Verdict) -> Verdict {
    if let Err(not) = containers {
        return Err(not.clone());
    }
    let missing = |gate: &str| match told(view, gate) {
        None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
        Some(condition) if condition.status != "True" => Some(format!(
            "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
            condition.status
        )),
        Some(_) => None,
    };
    let gates = view.spec().readiness_gates.iter().flatten();
    let missing: Vec<String> = gates.filter_map(|gate| missing(&gate.condition_type)).collect();
    match missing.is_empty() {
        true => Ok(None),
        false => Err(("ReadinessGatesNotReady", missing.join(", "))),
    }
}

/// A condition somebody else has set in the API.
fn told<'a>(view: &View<'a>, kind: &str) -> Option<&'a PodCondition> {
    condition(&view.status()?.conditions, kind)
}
