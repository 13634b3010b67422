//! The decision and the status, over a pod's life.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::memory::{Health, Memory};
use super::status::{condition, status};
use super::step::{Action, Ending, Plan, step};
use super::view::{Fate, View};
use crate::node::shim::{ContainerPhase, ContainerStatus, SandboxNetwork, SandboxSpec, SandboxStatus};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn pod(spec: serde_json::Value) -> Pod {
    let meta = json!({"name": "web", "namespace": "default", "uid": "u"});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

fn web(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "web", "image": "minilab/toolbox"}]}))
}

fn sandbox(containers: Vec<ContainerStatus>) -> SandboxStatus {
    SandboxStatus {
        id: "s".into(),
        spec: SandboxSpec {
            pod_uid: "u".into(),
            pod_name: "web".into(),
            pod_namespace: "default".into(),
            attempt: 0,
            hostname: "web".into(),
            network: SandboxNetwork::Pod { address: "10.244.1.2".parse().unwrap() },
            host_pid: false,
            host_ipc: false,
            share_process_namespace: false,
            sysctls: Default::default(),
            log_directory: "/var/log/pods/default_web_u".into(),
        },
        ready: true,
        created_at: at(0).to_string(),
        containers,
    }
}

fn running(name: &str, attempt: u32) -> ContainerStatus {
    ContainerStatus {
        id: format!("{name}{attempt}"),
        name: name.into(),
        attempt,
        phase: ContainerPhase::Running,
        pid: Some(7),
        created_at: at(0).to_string(),
        started_at: Some(at(0).to_string()),
        finished_at: None,
        exit_code: None,
        signal: None,
        reason: None,
        message: None,
        image: "docker.io/minilab/toolbox:latest".into(),
        image_id: "docker.io/minilab/toolbox@sha256:0".into(),
        log_path: "/var/log/pods/default_web_u/web/0.log".into(),
    }
}

fn exited(name: &str, attempt: u32, code: i32, when: i64) -> ContainerStatus {
    ContainerStatus {
        phase: ContainerPhase::Exited,
        pid: None,
        exit_code: Some(code),
        finished_at: Some(at(when).to_string()),
        ..running(name, attempt)
    }
}

fn ready_memory() -> Memory {
    Memory { volumes_ready: true, ..Memory::default() }
}

fn decide(
    pod: &Pod,
    fate: Fate,
    sandboxes: &[SandboxStatus],
    memory: &Memory,
    now: i64,
) -> (Plan, PodStatus) {
    let view = View { pod, fate, sandboxes, memory, now: at(now) };
    let plan = step(&view);
    let told = status(&view, &plan, "192.0.2.11".parse().unwrap(), &PodStatus::default());
    (plan, told)
}

fn start(name: &str, attempt: u32) -> Action {
    Action::Start { name: name.into(), attempt }
}

#[test]
fn a_new_pod_gets_a_sandbox_and_volumes_then_its_container_then_runs() {
    let pod = web("Always");
    let (plan, told) = decide(&pod, Fate::Wanted, &[], &Memory::default(), 0);
    assert_eq!(plan.actions, [Action::Sandbox { attempt: 0 }, Action::Volumes]);
    assert_eq!(told.phase.as_deref(), Some("Pending"));
    let waiting = &told.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap().waiting;
    assert_eq!(waiting.as_ref().unwrap().reason.as_deref(), Some("ContainerCreating"));
    let (plan, _) = decide(&pod, Fate::Wanted, &[sandbox(vec![])], &ready_memory(), 0);
    assert_eq!(plan.actions, [start("web", 0)]);
    let (plan, told) = decide(&pod, Fate::Wanted, &[sandbox(vec![running("web", 0)])], &ready_memory(), 0);
    assert_eq!((plan.actions.len(), told.phase.as_deref()), (0, Some("Running")));
    assert_eq!(condition(&told.conditions, "Ready").unwrap().status, "True");
    assert_eq!(told.pod_ip.as_deref(), Some("10.244.1.2"));
    assert_eq!(told.container_statuses.unwrap()[0].container_id.as_deref(), Some("minilab://web0"));
}

#[test]
fn volumes_that_are_not_there_yet_keep_containers_waiting() {
    let blocked = Memory { retry_at: Some(at(5)), ..Memory::default() };
    let (plan, _) = decide(&web("Always"), Fate::Wanted, &[sandbox(vec![])], &blocked, 0);
    assert_eq!((plan.actions.len(), plan.wake), (0, Some(at(5))));
    let (plan, _) = decide(&web("Always"), Fate::Wanted, &[sandbox(vec![])], &blocked, 6);
    assert_eq!(plan.actions, [Action::Volumes]);
}

#[test]
fn an_adopted_running_container_is_left_alone_while_its_volumes_are_checked() {
    let (plan, _) =
        decide(&web("Always"), Fate::Wanted, &[sandbox(vec![running("web", 3)])], &Memory::default(), 0);
    assert_eq!(plan.actions, [Action::Volumes]);
}

#[test]
fn init_containers_run_in_order_and_a_failed_one_fails_a_never_pod() {
    let spec = |policy: &str| {
        pod(json!({"restartPolicy": policy, "initContainers": [{"name": "a"}, {"name": "b"}],
                   "containers": [{"name": "web"}]}))
    };
    let memory = ready_memory();
    let (plan, told) = decide(&spec("Always"), Fate::Wanted, &[sandbox(vec![])], &memory, 0);
    assert_eq!(plan.actions, [start("a", 0)]);
    let initialized = condition(&told.conditions, "Initialized").unwrap();
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [a b]"));
    let one = sandbox(vec![exited("a", 0, 0, 1)]);
    assert_eq!(decide(&spec("Always"), Fate::Wanted, &[one], &memory, 1).0.actions, [start("b", 0)]);
    let two = sandbox(vec![exited("a", 0, 0, 1), exited("b", 0, 0, 1)]);
    assert_eq!(decide(&spec("Always"), Fate::Wanted, &[two], &memory, 1).0.actions, [start("web", 0)]);
    let broken = sandbox(vec![exited("a", 0, 1, 1)]);
    let (plan, told) = decide(&spec("Never"), Fate::Wanted, &[broken], &memory, 1);
    assert_eq!((plan.ending, told.phase.as_deref()), (Some(Ending::Completed), Some("Failed")));
}

#[test]
fn a_sidecar_lets_the_pod_go_on_once_it_has_started_and_is_stopped_last() {
    let pod = pod(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "side", "restartPolicy": "Always"}],
                         "containers": [{"name": "web"}]}),
    );
    let memory = ready_memory();
    let (plan, _) = decide(&pod, Fate::Wanted, &[sandbox(vec![running("side", 0)])], &memory, 0);
    assert_eq!(plan.actions, [start("web", 0)]);
    let both = [sandbox(vec![running("side", 0), running("web", 0)])];
    let (plan, _) = decide(&pod, Fate::Deleting { grace_seconds: 30 }, &both, &memory, 0);
    assert!(matches!(&plan.actions[..], [Action::Stop(stop)] if stop.name == "web"));
    let done = [sandbox(vec![running("side", 0), exited("web", 0, 0, 1)])];
    let (plan, _) = decide(&pod, Fate::Wanted, &done, &memory, 1);
    assert!(matches!(&plan.actions[..], [Action::Stop(stop)] if stop.name == "side"));
}

#[test]
fn a_crash_restarts_at_once_then_backs_off_with_upstreams_message() {
    let pod = web("Always");
    let mut memory = ready_memory();
    let first = [sandbox(vec![exited("web", 0, 1, 1)])];
    assert_eq!(decide(&pod, Fate::Wanted, &first, &memory, 1).0.actions, [start("web", 1)]);
    memory.of("web").crashes.advance(at(1));
    let second = [sandbox(vec![exited("web", 0, 1, 1), exited("web", 1, 7, 2)])];
    let (plan, told) = decide(&pod, Fate::Wanted, &second, &memory, 2);
    assert_eq!((plan.actions.len(), plan.wake), (0, Some(at(12))));
    let container = &told.container_statuses.unwrap()[0];
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(
        waiting.message.as_deref(),
        Some("back-off 10s restarting failed container=web pod=web_default(u)")
    );
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, container.restart_count, told.phase.as_deref()), (7, 1, Some("Running")));
    assert_eq!(decide(&pod, Fate::Wanted, &second, &memory, 12).0.actions, [start("web", 2)]);
}

#[test]
fn policies_decide_what_an_exit_means() {
    let memory = ready_memory();
    for (policy, code, phase) in [
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 3, "Running"),
    ] {
        let (plan, told) =
            decide(&web(policy), Fate::Wanted, &[sandbox(vec![exited("web", 0, code, 1)])], &memory, 1);
        assert_eq!(told.phase.as_deref(), Some(phase), "{policy} {code}");
        let stops = plan.actions.contains(&Action::StopSandbox { id: "s".into() });
        assert_eq!(stops, phase != "Running", "{policy} {code}");
    }
}

#[test]
fn deletion_stops_containers_then_the_sandbox_then_is_finished() {
    let pod = web("Always");
    let fate = Fate::Deleting { grace_seconds: 5 };
    let mut memory = ready_memory();
    let alive = [sandbox(vec![running("web", 0)])];
    let (plan, _) = decide(&pod, fate, &alive, &memory, 0);
    assert!(matches!(&plan.actions[..], [Action::Stop(stop)] if stop.grace.as_secs() == 5));
    memory.stopping.insert("web0".into(), at(5));
    assert!(decide(&pod, fate, &alive, &memory, 1).0.actions.is_empty());
    let sooner = Fate::Deleting { grace_seconds: 0 };
    assert_eq!(decide(&pod, sooner, &alive, &memory, 1).0.actions.len(), 1);
    let dead = [sandbox(vec![exited("web", 0, 143, 1)])];
    let (plan, _) = decide(&pod, fate, &dead, &memory, 1);
    assert_eq!((plan.actions.len(), plan.finished), (1, false));
    let mut over = sandbox(vec![exited("web", 0, 143, 1)]);
    over.ready = false;
    let (plan, told) = decide(&pod, fate, &[over], &memory, 1);
    assert_eq!((plan.finished, told.phase.as_deref()), (true, Some("Failed")));
}

#[test]
fn a_lost_sandbox_is_made_anew_and_counts_on() {
    let mut lost = sandbox(vec![exited("web", 2, 137, 1)]);
    lost.ready = false;
    let (plan, _) = decide(&web("Always"), Fate::Wanted, &[lost.clone()], &ready_memory(), 5);
    assert_eq!(plan.actions, [Action::Sandbox { attempt: 1 }]);
    let mut fresh = sandbox(vec![]);
    (fresh.id, fresh.spec.attempt) = ("t".into(), 1);
    let (plan, _) = decide(&web("Always"), Fate::Wanted, &[lost, fresh], &ready_memory(), 5);
    assert_eq!(plan.actions, [start("web", 3)]);
}

#[test]
fn probes_hold_back_readiness_and_stop_what_is_unhealthy() {
    let pod = pod(json!({"containers": [{"name": "web", "readinessProbe": {"tcpSocket": {"port": 80}}}]}));
    let mut memory = ready_memory();
    let alive = [sandbox(vec![running("web", 0)])];
    let (_, told) = decide(&pod, Fate::Wanted, &alive, &memory, 0);
    let ready = condition(&told.conditions, "Ready").unwrap();
    assert_eq!(ready.message.as_deref(), Some("containers with unready status: [web]"));
    let health = Health { id: "web0".into(), started: true, ready: true, unhealthy: None };
    memory.of("web").health = Some(health);
    let (_, told) = decide(&pod, Fate::Wanted, &alive, &memory, 0);
    assert_eq!(condition(&told.conditions, "Ready").unwrap().status, "True");
    memory.of("web").health.as_mut().unwrap().unhealthy =
        Some("Container web failed liveness probe, will be restarted".into());
    let (plan, _) = decide(&pod, Fate::Wanted, &alive, &memory, 0);
    assert!(matches!(&plan.actions[..], [Action::Stop(stop)] if stop.message.contains("liveness")));
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let mut pod = pod(json!({"activeDeadlineSeconds": 10, "containers": [{"name": "web"}]}));
    pod.status = Some(serde_json::from_value(json!({"startTime": at(0).to_string()})).unwrap());
    let alive = [sandbox(vec![running("web", 0)])];
    assert_eq!(decide(&pod, Fate::Wanted, &alive, &ready_memory(), 5).0.wake, Some(at(10)));
    let (plan, told) = decide(&pod, Fate::Wanted, &alive, &ready_memory(), 10);
    assert_eq!(
        (plan.ending, told.reason.as_deref()),
        (Some(Ending::DeadlineExceeded), Some("DeadlineExceeded"))
    );
    let mut over = sandbox(vec![exited("web", 0, 0, 11)]);
    over.ready = false;
    let (_, told) = decide(&pod, Fate::Wanted, &[over], &ready_memory(), 12);
    assert_eq!(told.phase.as_deref(), Some("Failed"));
}

#[test]
fn a_rejected_pod_fails_without_running_anything() {
    let memory = Memory { rejected: Some(("OutOfcpu".into(), "no".into())), ..Memory::default() };
    let (plan, told) = decide(&web("Always"), Fate::Wanted, &[], &memory, 0);
    assert!(plan.finished && plan.actions.is_empty());
    assert_eq!((told.phase.as_deref(), told.reason.as_deref()), (Some("Failed"), Some("OutOfcpu")));
}

#[test]
fn only_the_last_two_instances_are_kept() {
    let three = sandbox(vec![exited("web", 0, 1, 1), exited("web", 1, 1, 2), running("web", 2)]);
    let (plan, _) = decide(&web("Always"), Fate::Wanted, &[three], &ready_memory(), 3);
    assert_eq!(plan.actions, [Action::Forget { sandbox: "s".into(), container: "web0".into() }]);
}
