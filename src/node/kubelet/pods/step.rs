//! The decision of a pod's sync: from a [`View`] to what to do now, what to say, when to look again. Pure.
//!
//! ```text
//!            wanted                                    deleted, rejected, over its deadline, completed
//!   sandbox ─► volumes ─► init containers ─► main       stop main ─► stop sidecars ─► stop sandbox ─► done
//!      ▲        (in order, sidecars stay)     │
//!      └── the sandbox died ◄─────────────────┘ restart by policy, 10 s doubling to 5 min
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::memory::Failure;
use super::view::{Fate, Instance, View, is_sidecar, time};

/// A dead instance is kept for `kubectl logs --previous`; older ones are forgotten.
const KEPT: usize = 2;
/// A failed pull is shown as such this long, then as its back-off.
const SHOWN: SignedDuration = SignedDuration::from_secs(1);

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Sandbox {
        attempt: u32,
    },
    Volumes,
    Start {
        name: String,
        attempt: u32,
    },
    Stop(Stop),
    StopSandbox {
        id: String,
    },
    /// Forgets a dead instance and its log.
    Forget {
        sandbox: String,
        container: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stop {
    pub sandbox: String,
    pub container: String,
    pub name: String,
    pub grace: Duration,
    /// What the Killing event says.
    pub message: String,
}

/// Why a container is not running yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: &'static str,
    pub message: String,
}

/// Why a pod is being ended, where that shows in its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Deleted,
    Rejected,
    DeadlineExceeded,
    /// Its containers have done what they should.
    Completed,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub waiting: BTreeMap<String, Waiting>,
    /// Look again at this time although nothing happened.
    pub wake: Option<Timestamp>,
    pub ending: Option<Ending>,
    /// Ending, and nothing runs any more.
    pub finished: bool,
}

impl Plan {
    fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }
}

/// Decides.
pub fn step(view: &View<'_>) -> Plan {
    let mut plan = Plan { ending: ending(view), ..Plan::default() };
    match plan.ending {
        Some(ending) => end(view, ending, &mut plan),
        None => keep(view, &mut plan),
    }
    forget(view, &mut plan);
    plan
}

fn ending(view: &View<'_>) -> Option<Ending> {
    if view.fate != Fate::Wanted {
        return Some(Ending::Deleted);
    }
    if view.memory.rejected.is_some() {
        return Some(Ending::Rejected);
    }
    if view.terminal() || completed(view) {
        return Some(Ending::Completed);
    }
    view.deadline().filter(|deadline| *deadline <= view.now).map(|_| Ending::DeadlineExceeded)
}

/// Whether every main container is over for good, or an init container has failed for good.
fn completed(view: &View<'_>) -> bool {
    let over = |container: &Container| {
        view.latest(&container.name)
            .is_some_and(|instance| !instance.running() && !view.should_restart(container, &instance))
    };
    let broken = |container: &Container| {
        !is_sidecar(container)
            && over(container)
            && view.latest_here(&container.name).is_some_and(|instance| !instance.succeeded())
    };
    let mains = &view.spec().containers;
    (!mains.is_empty() && mains.iter().all(over))
        || (!view.initialized() && view.init_containers().iter().any(broken))
}

fn end(view: &View<'_>, ending: Ending, plan: &mut Plan) {
    let grace = match (view.fate, ending) {
        (Fate::Deleting { grace_seconds } | Fate::Gone { grace_seconds }, _) => grace_seconds,
        (Fate::Wanted, Ending::Rejected) => 0,
        (Fate::Wanted, _) => view.grace_seconds(),
    };
    let running: Vec<Instance<'_>> = view.all().filter(Instance::running).collect();
    let sidecar = |instance: &Instance<'_>| {
        view.init_containers().iter().any(|init| init.name == instance.container.name && is_sidecar(init))
    };
    // Sidecars get what the main containers have left of the pod's grace.
    let left =
        view.memory.stopping.values().min().map(|until| until.duration_since(view.now).as_secs().max(0));
    let mains_run = running.iter().any(|instance| !sidecar(instance));
    for instance in running.iter().filter(|instance| !mains_run || !sidecar(instance)) {
        let message = format!("Stopping container {}", instance.container.name);
        let grace = if sidecar(instance) { left.map_or(grace, |left| left.min(grace)) } else { grace };
        stop(view, instance, grace, message, plan);
    }
    if running.is_empty() {
        let ready = view.sandboxes.iter().filter(|sandbox| sandbox.ready);
        plan.actions.extend(ready.map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() }));
        plan.finished = plan.actions.is_empty();
    }
}

/// Stops an instance unless that is under way, with no more grace than now.
fn stop(view: &View<'_>, instance: &Instance<'_>, grace_seconds: i64, message: String, plan: &mut Plan) {
    let grace = SignedDuration::from_secs(grace_seconds.max(0));
    let until = view.now.checked_add(grace).unwrap_or(Timestamp::MAX);
    let id = &instance.container.id;
    let under_way = view.memory.stopping.get(id);
    if under_way.is_some_and(|already| {
        *already <= until.saturating_add(SignedDuration::from_secs(1)).unwrap_or(until)
    }) {
        return;
    }
    plan.actions.push(Action::Stop(Stop {
        sandbox: instance.sandbox.id.clone(),
        container: id.clone(),
        name: instance.container.name.clone(),
        grace: grace.unsigned_abs(),
        message,
    }));
}

fn keep(view: &View<'_>, plan: &mut Plan) {
    if let Some(deadline) = view.deadline() {
        plan.wake_at(deadline);
    }
    let blocked = view.memory.retry_at.filter(|retry| *retry > view.now);
    if let Some(retry) = blocked {
        plan.wake_at(retry);
    }
    if let Some(dead) = view.sandboxes.iter().find(|sandbox| {
        let alive = |container: &_| Instance { sandbox, container }.running();
        !sandbox.ready && sandbox.containers.iter().any(alive)
    }) {
        plan.actions.push(Action::StopSandbox { id: dead.id.clone() });
        return;
    }
    let ready = view.current().is_some_and(|sandbox| sandbox.ready);
    if blocked.is_none() {
        if !ready {
            let attempt = view.current().map_or(0, |sandbox| sandbox.spec.attempt + 1);
            plan.actions.push(Action::Sandbox { attempt });
        }
        if !view.memory.volumes_ready {
            plan.actions.push(Action::Volumes);
        }
    }
    if ready {
        containers(view, plan);
    }
}

fn containers(view: &View<'_>, plan: &mut Plan) {
    // In a pod whose init containers hang, too: that is what they are for.
    for ephemeral in view.ephemeral_containers() {
        if view.latest(&ephemeral.name).is_none() && !view.was_made(&ephemeral.name) {
            start(view, &ephemeral, plan);
        }
    }
    let initialized = view.initialized();
    for init in view.init_containers() {
        if is_sidecar(init) {
            ensure(view, init, plan);
            if !initialized && !view.started(init) {
                return;
            }
        } else if !initialized {
            match view.latest_here(&init.name) {
                Some(instance) if instance.succeeded() => continue,
                Some(instance) if instance.running() => {}
                Some(instance) => restart(view, init, &instance, plan),
                None => start(view, init, plan),
            }
            return;
        }
    }
    for main in &view.spec().containers {
        ensure(view, main, plan);
    }
}

/// A container that should run: starts it, restarts it, or stops it when its probes say so.
fn ensure(view: &View<'_>, container: &Container, plan: &mut Plan) {
    match view.latest(&container.name) {
        None => start(view, container, plan),
        Some(instance) if instance.running() => {
            let health = view.memory.health(&container.name, &instance.container.id);
            if let Some(message) = health.and_then(|health| health.unhealthy.clone()) {
                let own = container
                    .liveness_probe
                    .as_ref()
                    .and_then(|probe| probe.termination_grace_period_seconds);
                stop(view, &instance, own.unwrap_or_else(|| view.grace_seconds()), message, plan);
            }
        }
        Some(instance) if view.should_restart(container, &instance) => {
            restart(view, container, &instance, plan)
        }
        Some(_) => {}
    }
}

/// Starts a container again after an exit, when its delay is over.
fn restart(view: &View<'_>, container: &Container, instance: &Instance<'_>, plan: &mut Plan) {
    let ended = instance.container.finished_at.as_deref().and_then(time).unwrap_or(view.now);
    let crashes = view.memory.container(&container.name).map(|memory| memory.crashes).unwrap_or_default();
    let Some(until) = crashes.left(ended, view.now) else { return start(view, container, plan) };
    plan.wake_at(until);
    let meta = &view.pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let message = format!(
        "back-off {} restarting failed container={} pod={}_{}({})",
        go_duration(crashes.length()),
        container.name,
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid)
    );
    plan.waiting.insert(container.name.clone(), Waiting { reason: "CrashLoopBackOff", message });
}

/// Starts a container unless an attempt failed a short while ago.
fn start(view: &View<'_>, container: &Container, plan: &mut Plan) {
    let failure = view.memory.container(&container.name).and_then(|memory| memory.failure.as_ref());
    if let Some(failure) = failure {
        plan.waiting.insert(container.name.clone(), failed(view, container, failure));
        if failure.retry_at > view.now {
            plan.wake_at(failure.retry_at);
            if failure.reason == "ErrImagePull" {
                let flips = failure.since.saturating_add(SHOWN).unwrap_or(view.now);
                plan.wake_at(if flips > view.now { flips } else { failure.retry_at });
            }
            return;
        }
    }
    if view.memory.volumes_ready {
        let attempt = view.next_attempt(&container.name);
        plan.actions.push(Action::Start { name: container.name.clone(), attempt });
    }
}

fn failed(view: &View<'_>, container: &Container, failure: &Failure) -> Waiting {
    let age = view.now.duration_since(failure.since);
    if failure.reason == "ErrImagePull" && age >= SHOWN {
        let image = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
        return Waiting { reason: "ImagePullBackOff", message };
    }
    Waiting { reason: failure.reason, message: failure.message.clone() }
}

fn forget(view: &View<'_>, plan: &mut Plan) {
    let spec = view.spec();
    for container in spec.containers.iter().chain(view.init_containers()) {
        let mut instances: Vec<Instance<'_>> = view.instances(&container.name).collect();
        instances.sort_by_key(|instance| std::cmp::Reverse(instance.container.attempt));
        for old in instances.iter().skip(KEPT).filter(|old| !old.running()) {
            plan.actions.push(Action::Forget {
                sandbox: old.sandbox.id.clone(),
                container: old.container.id.clone(),
            });
        }
    }
}

/// Go's text for whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}
