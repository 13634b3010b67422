//! One pod's worker: observes, lets `step` decide, does it, reports, waits to be woken.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::super::api_text;
use super::dispatch::{Core, Desired};
use super::downward::Surroundings;
use super::etc::{self, Dns};
use super::launch::{self, Launch, field_path};
use super::memory::{Failure, Health, Memory};
use super::objects::Objects;
use super::probe::{self, Finding, News, Patient};
use super::reporter::Reporter;
use super::status::status;
use super::step::{Action, Plan, Stop, step};
use super::view::{Fate, Instance, View};
use super::volumes::{Gather, PodDir};
use super::{PodError, admit, spec};
use crate::client::Backoff;
use crate::client::events::Kind;
use crate::node::shim::{SandboxNetwork, SandboxStatus};

/// Files from the API are read again this often (upstream's `syncFrequency`).
const REFRESH: Duration = Duration::from_secs(60);
/// Upstream gives every container at least this long to end.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// This much of a termination message is read.
const MESSAGE_BYTES: usize = 4096;

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
            let Desired { pod, fate } = self.desired.borrow_and_update().clone();
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
            if !matches!(fate, Fate::Gone { .. }) {
                self.reporter.report(told);
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
        if let Err((reason, message)) = admit::admit(&self.core.me.node.borrow(), pod, &others) {
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
                Action::Stop(stop) => self.stop(pod, stop),
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

    /// Makes the sandbox and the volumes side by side: neither needs the other, only containers need both.
    async fn prepare(
        &mut self,
        pod: &Arc<Pod>,
        sandboxes: &[SandboxStatus],
        attempt: Option<u32>,
        volumes: bool,
    ) {
        let outcome = self.try_prepare(pod, sandboxes, attempt, volumes).await;
        let Err((reason, message)) = outcome else {
            (self.memory.retry_at, self.memory.tries) = (None, 0);
            return;
        };
        // What heals by itself (a ConfigMap about to be made) is looked at often at first.
        let delay = Duration::from_millis(50) * 2u32.pow(self.memory.tries.min(8));
        self.memory.tries += 1;
        self.memory.retry_at = Some(after(Timestamp::now(), delay.min(Duration::from_secs(10))));
        if let Some(reason) = reason {
            self.reporter.event(Kind::Warning, reason, message);
        }
    }

    async fn try_prepare(
        &mut self,
        pod: &Arc<Pod>,
        sandboxes: &[SandboxStatus],
        attempt: Option<u32>,
        volumes: bool,
    ) -> Result<(), (Option<&'static str>, String)> {
        self.core.services.ready().await;
        let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
        let known = sandboxes.last().and_then(address);
        let address = match (host_network, known) {
            (true, _) => None,
            (false, Some(known)) if attempt.is_none() => Some(known),
            (false, _) => {
                let range = self.core.me.pod_cidr().ok_or((None, String::new()))?;
                let failed = |error: PodError| (Some("FailedCreatePodSandBox"), sandbox_text(&error));
                Some(self.core.addresses.allocate(range, &self.uid).map_err(failed)?)
            }
        };
        self.write_etc(pod, address).map_err(|error| (Some("FailedMount"), error.to_string()))?;
        let around = self.surroundings(address.map(|address| address.to_string()));
        let make_sandbox = async {
            let Some(attempt) = attempt else { return Ok(()) };
            let config = &self.core.me.config;
            let spec = spec::sandbox(pod, attempt, address, &config.node_name, &config.pod_logs_dir);
            let made = self.core.runtime.run_sandbox(&spec).await.map(|_| ());
            made.map_err(|error| (Some("FailedCreatePodSandBox"), sandbox_text(&error.into())))
        };
        let set_up = async {
            if !volumes {
                return Ok(());
            }
            let gather = Gather { pod, around: &around, objects: &self.objects };
            self.dir.set_up(&gather).await.map_err(|(volume, error)| {
                (Some("FailedMount"), format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}"))
            })
        };
        let (sandbox, files) = tokio::join!(make_sandbox, set_up);
        self.memory.volumes_ready |= volumes && files.is_ok();
        sandbox.and(files)
    }

    /// /etc/hosts and /etc/resolv.conf; written in place, because containers have them bound.
    fn write_etc(&self, pod: &Pod, address: Option<std::net::Ipv4Addr>) -> Result<(), PodError> {
        let config = &self.core.me.config;
        let node = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let text = address.map(|address| address.to_string());
        let hosts = etc::hosts(pod, text.as_deref(), &config.cluster_domain, &node("/etc/hosts"));
        let node_dns = node("/etc/resolv.conf");
        let dns = Dns { servers: &config.cluster_dns, domain: &config.cluster_domain, node: &node_dns };
        let spec = pod.spec.clone().unwrap_or_default();
        let resolv = etc::resolv_conf(&spec, pod.metadata.namespace.as_deref().unwrap_or_default(), &dns);
        for (name, contents) in [(launch::HOSTS, hosts), (launch::RESOLV_CONF, resolv)] {
            let path = self.dir.path().join(name);
            let io = |source| PodError::Io { what: "write", path: path.clone(), source };
            std::fs::create_dir_all(self.dir.path()).map_err(io)?;
            if std::fs::read_to_string(&path).ok().as_deref() != Some(&contents) {
                std::fs::write(&path, contents).map_err(io)?;
            }
        }
        Ok(())
    }

    fn surroundings(&self, pod_ip: Option<String>) -> Surroundings {
        let me = &self.core.me;
        Surroundings {
            host_ip: me.address,
            pod_ip: pod_ip.unwrap_or_else(|| me.address.to_string()),
            cpus: me.machine.cpus,
            memory_bytes: me.machine.memory_bytes,
            storage_bytes: me.machine.storage_bytes,
        }
    }

    async fn start(&mut self, pod: &Arc<Pod>, sandboxes: &[SandboxStatus], name: &str, attempt: u32) {
        let Some(sandbox) = sandboxes.last() else { return };
        let spec = pod.spec.clone().unwrap_or_default();
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let Some(container) = all.find(|container| container.name == name) else { return };
        if attempt > 0 {
            self.memory.of(name).crashes.advance(Timestamp::now());
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let services = self.core.services.variables(namespace, spec.enable_service_links != Some(false));
        let around = self.surroundings(address(sandbox).map(|address| address.to_string()));
        let launch = Launch {
            runtime: &self.core.runtime,
            pod,
            dir: &self.dir,
            objects: &self.objects,
            services: &services,
            around: &around,
            reporter: &self.reporter,
            log_root: &self.core.me.config.pod_logs_dir,
        };
        let failure = launch.start(container, &sandbox.id, attempt).await.err();
        let memory = self.memory.of(name);
        memory.failure = failure.filter(|failure| failure.reason != "RunContainerError").map(|failure| {
            let tries = memory.failure.as_ref().map_or(0, |failure| failure.tries);
            let now = Timestamp::now();
            let delay = retry_delay(failure.reason, tries);
            Failure {
                reason: failure.reason,
                message: failure.message,
                since: now,
                retry_at: after(now, delay),
                tries: tries + 1,
            }
        });
    }

    /// Stops a container beside everything else; its shim tells when it is over.
    fn stop(&mut self, pod: &Pod, stop: &Stop) {
        let grace = stop.grace.max(LEAST_GRACE);
        let first = self
            .memory
            .stopping
            .insert(stop.container.clone(), after(Timestamp::now(), stop.grace))
            .is_none();
        if first {
            let path = field_path(pod, &stop.name);
            self.reporter.container_event(&path, Kind::Normal, "Killing", stop.message.clone());
            info!(pod = self.uid, container = stop.name, grace = ?grace, "Killing container with a grace period");
        }
        let (runtime, wake, stop) = (self.core.runtime.clone(), Arc::clone(&self.wake), stop.clone());
        tokio::spawn(async move {
            if let Err(error) = runtime.stop_container(&stop.sandbox, &stop.container, grace).await {
                warn!(%error, container = stop.name, "Failed to stop container");
            }
            wake.notify_one();
        });
    }

    async fn forget(&self, pod: &Pod, sandboxes: &[SandboxStatus], sandbox: &str, container: &str) -> bool {
        let known = sandboxes.iter().flat_map(|one| &one.containers).find(|one| one.id == container);
        if let Err(error) = self.core.runtime.remove_container(sandbox, container).await {
            warn!(%error, container, "Failed to remove container");
            return false;
        }
        if let Some(known) = known {
            let _ = std::fs::remove_file(&known.log_path);
            self.unlink_logs(pod, |name| name.ends_with(&format!("-{container}.log")));
        }
        true
    }

    /// Removes the pod's links in /var/log/containers.
    fn unlink_logs(&self, pod: &Pod, which: impl Fn(&str) -> bool) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let prefix = format!("{}_{}_", text(&pod.metadata.name), text(&pod.metadata.namespace));
        let Some(dir) = self.core.me.config.pod_logs_dir.parent().map(|logs| logs.join("containers")) else {
            return;
        };
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && which(&name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Takes in what a probe found.
    fn hear(&mut self, news: News) {
        let pod = self.desired.borrow().pod.clone();
        let spec = pod.spec.clone().unwrap_or_default();
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let has_readiness = all
            .find(|container| container.name == news.container)
            .is_some_and(|one| one.readiness_probe.is_some());
        let path = field_path(&pod, &news.container);
        let memory = self.memory.of(&news.container);
        let Some(health) = memory.health.as_mut().filter(|health| health.id == news.id) else { return };
        match news.finding {
            Finding::Started => (health.started, health.ready) = (true, !has_readiness),
            Finding::Ready(ready) => health.ready = ready,
            Finding::Failed(message) => {
                self.reporter.container_event(&path, Kind::Warning, "Unhealthy", message);
            }
            Finding::Unhealthy(kind) => {
                let message = format!("Container {} failed {kind} probe, will be restarted", news.container);
                health.unhealthy = Some(message);
            }
        }
    }

    /// Probes every running container that has probes, and no other.
    fn observe_health(&mut self, pod: &Pod, sandboxes: &[SandboxStatus]) {
        let running: Vec<(String, String, String)> = sandboxes
            .iter()
            .flat_map(|sandbox| {
                sandbox.containers.iter().map(move |container| Instance { sandbox, container })
            })
            .filter(Instance::running)
            .map(|one| {
                let ip = address(one.sandbox)
                    .map_or_else(|| self.core.me.address.to_string(), |ip| ip.to_string());
                (one.container.name.clone(), one.container.id.clone(), ip)
            })
            .collect();
        self.probes.retain(|id, task| {
            let keep = running.iter().any(|(_, running, _)| running == id);
            if !keep {
                task.abort();
            }
            keep
        });
        let spec = pod.spec.iter();
        let all = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        for container in all {
            let probed = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
            if probed.iter().all(|probe| probe.is_none()) {
                continue;
            }
            let Some((_, id, ip)) = running.iter().find(|(name, ..)| *name == container.name) else {
                continue;
            };
            if self.probes.contains_key(id) {
                continue;
            }
            // What an earlier kubelet had found of this very container still holds.
            let told = [&self.before, pod.status.as_ref().unwrap_or(&self.before)];
            let told = told
                .iter()
                .flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses));
            let told = told
                .flatten()
                .find(|told| told.container_id == Some(super::container_status::container_id(id)));
            let started =
                container.startup_probe.is_none() || told.is_some_and(|told| told.started == Some(true));
            let ready =
                started && (container.readiness_probe.is_none() || told.is_some_and(|told| told.ready));
            self.memory.of(&container.name).health =
                Some(Health { id: id.clone(), started, ready, unhealthy: None });
            let patient = Patient {
                container: container.clone(),
                id: id.clone(),
                address: ip.clone(),
                started,
                news: self.findings.0.clone(),
            };
            self.probes.insert(id.clone(), tokio::spawn(probe::observe(patient)).abort_handle());
        }
    }

    /// Reads the termination message of containers that ended.
    fn listen_to_last_words(&mut self, pod: &Pod, sandboxes: &[SandboxStatus]) {
        for sandbox in sandboxes {
            for container in &sandbox.containers {
                let ended = !(Instance { sandbox, container }).running();
                if !ended || self.memory.messages.contains_key(&container.id) {
                    continue;
                }
                let file = launch::termination_file(&self.dir, &container.name, container.attempt);
                let mut words = std::fs::read(file).unwrap_or_default();
                words.truncate(MESSAGE_BYTES);
                let mut text = String::from_utf8_lossy(&words).into_owned();
                let spec = pod.spec.iter().flat_map(|spec| &spec.containers);
                let by_log = spec.into_iter().any(|wanted| {
                    wanted.name == container.name
                        && wanted.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
                });
                if text.is_empty() && by_log && container.exit_code != Some(0) {
                    text = log_tail(&container.log_path);
                }
                self.memory.messages.insert(container.id.clone(), text);
            }
        }
    }

    /// The events of a container that begins to wait.
    fn tell_waiting(&mut self, pod: &Pod, plan: &Plan) {
        for (name, waiting) in &plan.waiting {
            if self.told.insert(name.clone(), waiting.reason) == Some(waiting.reason) {
                continue;
            }
            let path = field_path(pod, name);
            let meta = &pod.metadata;
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            match waiting.reason {
                "CrashLoopBackOff" => {
                    let message = format!(
                        "Back-off restarting failed container {name} in pod {}_{}({})",
                        text(&meta.name),
                        text(&meta.namespace),
                        self.uid
                    );
                    self.reporter.container_event(&path, Kind::Warning, "BackOff", message);
                }
                "ImagePullBackOff" => {
                    let head = waiting.message.split(": ErrImagePull").next().unwrap_or_default();
                    self.reporter.container_event(&path, Kind::Normal, "BackOff", head);
                    self.reporter.container_event(&path, Kind::Warning, "Failed", "Error: ImagePullBackOff");
                }
                _ => {}
            }
        }
        self.told.retain(|name, _| plan.waiting.contains_key(name));
    }

    /// Reads files that come from the API anew, in the background.
    fn refresh_volumes(&mut self, pod: &Arc<Pod>, sandboxes: &[SandboxStatus], plan: &Plan) {
        let running = self.refresh.as_ref().is_some_and(|task| !task.is_finished());
        if plan.ending.is_some() || running || !self.memory.volumes_ready {
            return;
        }
        let pod_ip = sandboxes.last().and_then(address).map(|address| address.to_string());
        let (around, dir) = (self.surroundings(pod_ip), self.dir.clone());
        let (pod, objects) = (Arc::clone(pod), Arc::clone(&self.objects));
        let task = tokio::spawn(async move {
            tokio::time::sleep(REFRESH).await;
            let gather = Gather { pod: &pod, around: &around, objects: &objects };
            if let Err((volume, error)) = dir.set_up(&gather).await {
                warn!(%error, volume, "Cannot refresh a volume");
            }
        });
        self.refresh = Some(task.abort_handle());
    }

    fn quiet(&mut self) {
        self.probes.values().chain(&self.refresh).for_each(AbortHandle::abort);
        self.probes.clear();
    }

    /// A pod that has run its course: what it used is given back, what it said stays.
    fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.quiet();
            self.dir.remove();
            self.core.addresses.release(&self.uid);
        }
    }

    /// Nothing of the pod runs any more: says so, lets the API forget it, and forgets it here.
    async fn finish(&mut self, pod: &Pod, fate: Fate, sandboxes: &[SandboxStatus]) {
        self.settle();
        if matches!(fate, Fate::Deleting { .. }) {
            self.reporter.flushed().await;
            self.delete(pod).await;
        }
        for sandbox in sandboxes {
            if let Err(error) = self.core.runtime.remove_sandbox(&sandbox.id).await {
                warn!(%error, pod = self.uid, "Failed to remove sandbox");
            }
        }
        let logs = spec::log_directory(&self.core.me.config.pod_logs_dir, pod);
        let _ = std::fs::remove_dir_all(logs);
        let ids: Vec<String> = sandboxes
            .iter()
            .flat_map(|sandbox| &sandbox.containers)
            .map(|one| format!("-{}.log", one.id))
            .collect();
        self.unlink_logs(pod, |name| ids.iter().any(|id| name.ends_with(id)));
        self.core.pods.remove(&self.uid);
    }

    async fn delete(&self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.core.me.client.clone(), namespace);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let preconditions = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let mut backoff = Backoff::new();
        loop {
            match api.delete(name, &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(error) => {
                    warn!(error = api_text(&error), pod = name, "Failed to delete status for pod");
                    backoff.wait().await;
                }
            }
        }
    }
}

/// A sandbox's own address.
fn address(sandbox: &SandboxStatus) -> Option<std::net::Ipv4Addr> {
    match sandbox.spec.network {
        SandboxNetwork::Pod { address } => Some(address),
        SandboxNetwork::Host => None,
    }
}

fn sandbox_text(error: &PodError) -> String {
    format!("Failed to create pod sandbox: {error}")
}

fn after(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok()).unwrap_or(now)
}

/// Images: 10 s doubling to 5 minutes. The rest heals when somebody makes the missing object: 1 s to 10 s.
fn retry_delay(reason: &str, tries: u32) -> Duration {
    let (first, last) = match reason {
        "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" => (10, 300),
        _ => (1, 10),
    };
    Duration::from_secs((first << tries.min(6)).min(last))
}

/// The end of a container's log as its termination message: at most 2048 bytes or 80 lines.
fn log_tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let kept = lines[lines.len().saturating_sub(80)..].join("\n");
    let cut = kept.len().saturating_sub(2048);
    let cut = (cut..kept.len()).find(|at| kept.is_char_boundary(*at)).unwrap_or(kept.len());
    kept[cut..].to_owned()
}
