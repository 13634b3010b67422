//! One pod's worker: observes, lets `step` decide, does it, reports, waits to be woken.

mod end;
mod health;
mod prepare;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tracing::warn;

use super::admit;
use super::dispatch::{Core, Desired};
use super::memory::Memory;
use super::objects::Objects;
use super::probe::News;
use super::reporter::Reporter;
use super::status::status;
use super::step::{Action, Plan, step};
use super::sysctl;
use super::view::{Fate, View};
use super::volumes::PodDir;
use crate::client::events::Kind;
use crate::node::shim::{SandboxNetwork, SandboxStatus};

/// Files from the API are read again this often (upstream's `syncFrequency`).
const REFRESH: Duration = Duration::from_secs(60);

pub struct Worker {
    core: Arc<Core>,
    uid: String,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    memory: Memory,
    reporter: Reporter,
    objects: Arc<Objects>,
    dir: PodDir,
    /// The status reported last; at first what the API has.
    before: PodStatus,
    admitted: bool,
    settled: bool,
    probes: BTreeMap<String, AbortHandle>,
    refresh: Option<AbortHandle>,
    findings: (mpsc::Sender<News>, mpsc::Receiver<News>),
    /// Back-offs already told, by container.
    told: BTreeMap<String, &'static str>,
    /// Of a static pod: how often its mirror was lost so far.
    mirrors_lost: u32,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.probes.values().chain(&self.refresh).for_each(AbortHandle::abort);
    }
}
impl Worker {
    pub fn new(core: Arc<Core>, desired: watch::Receiver<Desired>, wake: Arc<Notify>) -> Self {
        let pod = desired.borrow().pod.clone();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        Self {
            reporter: Reporter::new(core.me.client.clone(), core.me.events.clone(), &pod),
            objects: Arc::new(Objects::new(core.me.client.clone(), &namespace)),
            dir: PodDir::new(&core.me.config.root_dir, &uid),
            before: pod.status.clone().unwrap_or_default(),
            memory: Memory::default(),
            admitted: false,
            settled: false,
            probes: BTreeMap::new(),
            refresh: None,
            findings: mpsc::channel(16),
            told: BTreeMap::new(),
            mirrors_lost: 0,
            core,
            uid,
            desired,
            wake,
        }
    }

    /// Works until the pod is gone from the API and from this node.
    pub async fn run(mut self) {
        loop {
            let Some(until) = self.sync().await else { return };
            let limit = until.unwrap_or_else(|| after(Timestamp::now(), REFRESH));
            let left = Duration::try_from(limit.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
            tokio::select! {
                changed = self.desired.changed() => if changed.is_err() { return },
                () = self.wake.notified() => {}
                Some(news) = self.findings.1.recv() => self.hear(news),
                () = tokio::time::sleep(left.max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// Brings the pod as far as it goes now. Answers when to look again; nothing when all is over.
    async fn sync(&mut self) -> Option<Option<Timestamp>> {
        loop {
            let Desired { pod, fate, mirrors_lost } = self.desired.borrow_and_update().clone();
            let sandboxes = self.core.runtime.of_pod(&self.uid);
            self.admit(&pod, fate, &sandboxes);
            self.listen_to_last_words(&pod, &sandboxes);
            let now = Timestamp::now();
            let (plan, told) = {
                let view = View { pod: &pod, fate, sandboxes: &sandboxes, memory: &self.memory, now };
                let plan = step(&view);
                let told = status(&view, &plan, self.core.me.address, &self.before);
                (plan, told)
            };
            self.core.pods.note(&self.uid, &told);
            self.before = told.clone();
            // What holds for the few milliseconds of a start is not worth a durable write.
            let starting = plan.actions.iter().any(|action| matches!(action, Action::Start { .. }));
            if !starting && !matches!(fate, Fate::Gone { .. }) {
                self.reporter.report(told);
            }
            if std::mem::replace(&mut self.mirrors_lost, mirrors_lost) != mirrors_lost {
                self.reporter.again();
            }
            self.observe_health(&pod, &sandboxes);
            self.tell_waiting(&pod, &plan);
            if plan.finished {
                if fate != Fate::Wanted {
                    self.finish(&pod, fate, &sandboxes).await;
                    return None;
                }
                self.settle();
                return Some(None);
            }
            let progress = self.perform(&pod, &sandboxes, &plan).await;
            if !progress {
                self.refresh_volumes(&pod, &sandboxes, &plan);
                return Some(plan.wake);
            }
        }
    }

    /// Judges a pod this node has not begun yet, once.
    fn admit(&mut self, pod: &Arc<Pod>, fate: Fate, sandboxes: &[SandboxStatus]) {
        if std::mem::replace(&mut self.admitted, true) || fate != Fate::Wanted || !sandboxes.is_empty() {
            return;
        }
        if matches!(self.before.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return;
        }
        let others = self.core.pods.active(&self.uid);
        let others: Vec<&Pod> = others.iter().map(AsRef::as_ref).collect();
        let allowed = &self.core.me.config.allowed_unsafe_sysctls;
        let judged = sysctl::admit(pod, allowed)
            .and_then(|()| admit::admit(&self.core.me.node.borrow(), pod, &others));
        if let Err((reason, message)) = judged {
            self.reporter.event(Kind::Warning, &reason, message.clone());
            self.memory.rejected = Some((reason, message));
        }
    }

    /// Does what was decided. True when the world may have changed by it.
    async fn perform(&mut self, pod: &Arc<Pod>, sandboxes: &[SandboxStatus], plan: &Plan) -> bool {
        let attempt = plan.actions.iter().find_map(|action| match action {
            Action::Sandbox { attempt } => Some(*attempt),
            _ => None,
        });
        let mut progress = false;
        if attempt.is_some() || plan.actions.contains(&Action::Volumes) {
            self.prepare(pod, sandboxes, attempt, plan.actions.contains(&Action::Volumes)).await;
            progress = true;
        }
        for action in &plan.actions {
            match action {
                Action::Sandbox { .. } | Action::Volumes => {}
                Action::Start { name, attempt } => {
                    self.start(pod, sandboxes, name, *attempt).await;
                    progress = true;
                }
                Action::Stop(stop) => self.stop(pod, sandboxes, stop),
                Action::StopSandbox { id } => match self.core.runtime.stop_sandbox(id).await {
                    Ok(()) => progress = true,
                    Err(error) => warn!(%error, pod = self.uid, "Failed to stop sandbox"),
                },
                Action::Forget { sandbox, container } => {
                    progress |= self.forget(pod, sandboxes, sandbox, container).await;
                }
            }
        }
        progress
    }
}

/// A sandbox's own address.
fn address(sandbox: &SandboxStatus) -> Option<std::net::Ipv4Addr> {
    match sandbox.spec.network {
        SandboxNetwork::Pod { address } => Some(address),
        SandboxNetwork::Host => None,
    }
}

fn after(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok()).unwrap_or(now)
}
