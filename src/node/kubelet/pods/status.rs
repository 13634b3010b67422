//! A pod's status in upstream's words: phase, conditions, container states. Pure.
//!
//! `pkg/kubelet/kubelet_pods.go` (`generateAPIPodStatus`, `getPhase`) and `pkg/kubelet/status`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostIP, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::conditions;
use super::container_status::{Kind, container_status};
use super::qos::class;
use super::step::{Ending, Plan};
use super::view::{Instance, View, is_sidecar};
use crate::node::shim::SandboxNetwork;

/// The status to report. `before` is what was reported last (or what the API has).
pub fn status(view: &View<'_>, plan: &Plan, host: IpAddr, before: &PodStatus) -> PodStatus {
    let spec = view.spec();
    let old = |list: &Option<Vec<_>>, name: &str| {
        let list: &[k8s_openapi::api::core::v1::ContainerStatus] = list.as_deref().unwrap_or_default();
        list.iter().find(|status| status.name == name).cloned()
    };
    let mut mains: Vec<_> = spec
        .containers
        .iter()
        .map(|main| {
            container_status(view, plan, main, Kind::Main, old(&before.container_statuses, &main.name))
        })
        .collect();
    mains.sort_by(|one, other| one.name.cmp(&other.name));
    let inits: Vec<_> = view
        .init_containers()
        .iter()
        .map(|init| {
            container_status(view, plan, init, Kind::Init, old(&before.init_container_statuses, &init.name))
        })
        .collect();
    let ephemerals: Vec<_> = view
        .ephemeral_containers()
        .iter()
        .map(|one| {
            let old = old(&before.ephemeral_container_statuses, &one.name);
            container_status(view, plan, one, Kind::Ephemeral, old)
        })
        .collect();
    let (reason, message) = explained(view, plan, before);
    let ips = pod_ips(view, host, before);
    let mut status = PodStatus {
        phase: Some(phase(view, plan, before).into()),
        reason,
        message,
        host_ip: Some(host.to_string()),
        host_ips: Some(vec![HostIP { ip: host.to_string() }]),
        pod_ip: ips.first().map(|ip| ip.ip.clone()),
        pod_ips: (!ips.is_empty()).then_some(ips),
        start_time: Some(before.start_time.clone().unwrap_or(Time(view.now))),
        qos_class: Some(class(spec).into()),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: (!mains.is_empty()).then_some(mains),
        ephemeral_container_statuses: (!ephemerals.is_empty()).then_some(ephemerals),
        observed_generation: view.pod.metadata.generation,
        ..PodStatus::default()
    };
    if matches!(plan.ending, Some(Ending::Rejected)) {
        (status.init_container_statuses, status.container_statuses) = (None, None);
    }
    status.conditions = Some(conditions(view, &status, before));
    status
}

/// `status.reason` and `status.message`, which a few ways to end leave.
fn explained(view: &View<'_>, plan: &Plan, before: &PodStatus) -> (Option<String>, Option<String>) {
    match (&view.memory.rejected, plan.ending) {
        (Some((reason, message)), _) => (Some(reason.clone()), Some(message.clone())),
        (None, Some(Ending::DeadlineExceeded)) => {
            let message = "Pod was active on the node longer than the specified deadline";
            (Some("DeadlineExceeded".into()), Some(message.into()))
        }
        _ => (before.reason.clone(), before.message.clone()),
    }
}

fn pod_ips(view: &View<'_>, host: IpAddr, before: &PodStatus) -> Vec<PodIP> {
    match view.current().map(|sandbox| &sandbox.spec.network) {
        Some(SandboxNetwork::Pod { address }) => vec![PodIP { ip: address.to_string() }],
        Some(SandboxNetwork::Host) => vec![PodIP { ip: host.to_string() }],
        None => before.pod_ips.clone().unwrap_or_default(),
    }
}

fn phase(view: &View<'_>, plan: &Plan, before: &PodStatus) -> &'static str {
    match before.phase.as_deref() {
        // Nothing leads out of these.
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    if plan.ending == Some(Ending::Rejected) {
        return "Failed";
    }
    let over = plan.finished && plan.ending.is_some();
    if over && plan.ending == Some(Ending::DeadlineExceeded) {
        return "Failed";
    }
    let never = view.spec().restart_policy.as_deref() == Some("Never");
    let init_open = !view.initialized()
        && view.init_containers().iter().any(|init| match view.latest_here(&init.name) {
            _ if is_sidecar(init) => !view.started(init),
            Some(instance) => !instance.succeeded(),
            None => true,
        });
    let init_failed = |view: &View<'_>| {
        let failed = |instance: Instance<'_>| !instance.running() && !instance.succeeded();
        view.init_containers()
            .iter()
            .any(|init| !is_sidecar(init) && view.latest_here(&init.name).is_some_and(failed))
    };
    if init_open {
        return if (never && init_failed(view)) || over { "Failed" } else { "Pending" };
    }
    let latest: Vec<Option<Instance<'_>>> =
        view.spec().containers.iter().map(|main| view.latest(&main.name)).collect();
    if latest.iter().any(Option::is_none) {
        return if over { "Failed" } else { "Pending" };
    }
    let latest: Vec<Instance<'_>> = latest.into_iter().flatten().collect();
    if latest.iter().any(Instance::running) {
        return "Running";
    }
    let all_well = latest.iter().all(Instance::succeeded);
    let done = plan.ending == Some(Ending::Completed);
    match (over || done, all_well) {
        (true, true) => "Succeeded",
        (true, false) => "Failed",
        // A restart is due, or containers of a deleted pod are just being counted.
        (false, _) => "Running",
    }
}

/// A condition of the list, if it is there.
pub fn condition<'a>(list: &'a Option<Vec<PodCondition>>, kind: &str) -> Option<&'a PodCondition> {
    list.as_ref()?.iter().find(|condition| condition.type_ == kind)
}
