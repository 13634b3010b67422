//! Single containers: starting, stopping, forgetting, and their last words.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tracing::{info, warn};

use super::super::hook;
use super::super::launch::{self, Launch, NotStarted, field_path};
use super::super::log_files;
use super::super::memory::Failure;
use super::super::probe::Subject;
use super::super::step::Stop;
use super::super::view::{Fate, Instance, find_container};
use super::{Worker, address, after};
use crate::client::events::Kind;
use crate::node::shim::{ContainerStatus, SandboxStatus};

/// Upstream gives every container at least this long to end.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// This much of a termination message is read.
const MESSAGE_BYTES: usize = 4096;

impl Worker {
    pub(super) async fn start(
        &mut self,
        pod: &Arc<Pod>,
        sandboxes: &[SandboxStatus],
        name: &str,
        attempt: u32,
    ) {
        let Some(sandbox) = sandboxes.last() else { return };
        let spec = pod.spec.clone().unwrap_or_default();
        let Some(container) = find_container(pod, name) else { return };
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
        let failure = match launch.start(&container, &sandbox.id, attempt).await {
            Ok(status) => self.after_start(pod, sandbox, container, &status).await.err(),
            Err(failure) => Some(failure),
        };
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

    /// The hook of a container that has just started. One whose hook fails is stopped again.
    async fn after_start(
        &mut self,
        pod: &Arc<Pod>,
        sandbox: &SandboxStatus,
        container: Container,
        status: &ContainerStatus,
    ) -> Result<(), NotStarted> {
        let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone());
        let Some(handler) = handler else { return Ok(()) };
        let name = container.name.clone();
        let subject = self.subject(sandbox, container, &status.id);
        let mut desired = self.desired.clone();
        let outcome = tokio::select! {
            outcome = hook::run(&handler, pod, &subject) => outcome,
            // A pod that is to end does not wait for it.
            _ = desired.wait_for(|desired| desired.fate != Fate::Wanted) => return Ok(()),
        };
        let Err(message) = outcome else { return Ok(()) };
        info!(pod = self.uid, container = name, message, "Failed to execute PostStartHook");
        let path = field_path(pod, &name);
        self.reporter.container_event(&path, Kind::Warning, "FailedPostStartHook", "PostStartHook failed");
        let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
        let stop = Stop {
            sandbox: sandbox.id.clone(),
            container: status.id.clone(),
            name,
            grace: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            message: "FailedPostStartHook".into(),
        };
        self.stop(pod, std::slice::from_ref(sandbox), &stop);
        Err(NotStarted { reason: "PostStartHookError", message })
    }

    fn subject(&self, sandbox: &SandboxStatus, container: Container, id: &str) -> Subject {
        let own = address(sandbox).map(|address| address.to_string());
        Subject {
            runtime: self.core.runtime.clone(),
            sandbox: sandbox.id.clone(),
            container,
            id: id.to_owned(),
            address: own.unwrap_or_else(|| self.core.me.address.to_string()),
        }
    }

    /// Stops a container beside everything else, after the hook it may have; its shim tells when it is over.
    pub(super) fn stop(&mut self, pod: &Arc<Pod>, sandboxes: &[SandboxStatus], stop: &Stop) {
        let first = self
            .memory
            .stopping
            .insert(stop.container.clone(), after(Timestamp::now(), stop.grace))
            .is_none();
        if first {
            let path = field_path(pod, &stop.name);
            self.reporter.container_event(&path, Kind::Normal, "Killing", stop.message.clone());
            info!(pod = self.uid, container = stop.name, grace = ?stop.grace, "Killing container with a grace period");
        }
        let before = if first { self.before_stop(pod, sandboxes, stop) } else { None };
        let (runtime, wake, stop) = (self.core.runtime.clone(), Arc::clone(&self.wake), stop.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            if let Some(hook) = before {
                hook.await;
            }
            // Always a moment to end by itself, whatever the hook has left of the grace.
            let grace = stop.grace.saturating_sub(begun.elapsed()).max(LEAST_GRACE);
            if let Err(error) = runtime.stop_container(&stop.sandbox, &stop.container, grace).await {
                warn!(%error, container = stop.name, "Failed to stop container");
            }
            wake.notify_one();
        });
    }

    /// The hook of a container that is about to be stopped, where it has one and any time for it.
    fn before_stop(
        &self,
        pod: &Arc<Pod>,
        sandboxes: &[SandboxStatus],
        stop: &Stop,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        let container = find_container(pod, &stop.name)?;
        let handler = container.lifecycle.as_ref()?.pre_stop.clone()?;
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.id == stop.sandbox)?;
        if stop.grace.is_zero() {
            return None;
        }
        let subject = self.subject(sandbox, container, &stop.container);
        let (pod, grace, name) = (Arc::clone(pod), stop.grace, stop.name.clone());
        let (path, voice) = (field_path(&pod, &name), self.reporter.voice());
        Some(async move {
            match tokio::time::timeout(grace, hook::run(&handler, &pod, &subject)).await {
                Ok(Ok(())) => {}
                Ok(Err(message)) => {
                    info!(container = name, message, "PreStop hook failed");
                    voice.container_event(&path, Kind::Warning, "FailedPreStopHook", "PreStopHook failed");
                }
                Err(_) => info!(container = name, "PreStop hook not completed in grace period"),
            }
        })
    }

    pub(super) async fn forget(
        &self,
        pod: &Pod,
        sandboxes: &[SandboxStatus],
        sandbox: &str,
        container: &str,
    ) -> bool {
        let known = sandboxes.iter().flat_map(|one| &one.containers).find(|one| one.id == container);
        if let Err(error) = self.core.runtime.remove_container(sandbox, container).await {
            warn!(%error, container, "Failed to remove container");
            return false;
        }
        if let Some(known) = known {
            log_files::clean(&known.log_path);
            self.unlink_logs(pod, |name| name.ends_with(&format!("-{container}.log")));
        }
        true
    }

    /// Removes the pod's links in /var/log/containers.
    pub(super) fn unlink_logs(&self, pod: &Pod, which: impl Fn(&str) -> bool) {
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

    /// Reads the termination message of containers that ended.
    pub(super) fn listen_to_last_words(&mut self, pod: &Pod, sandboxes: &[SandboxStatus]) {
        let exists = |id: &String| sandboxes.iter().flat_map(|one| &one.containers).any(|one| one.id == *id);
        self.memory.messages.retain(|id, _| exists(id));
        self.memory.stopping.retain(|id, _| exists(id));
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
                let wanted = find_container(pod, &container.name);
                let policy = wanted.and_then(|wanted| wanted.termination_message_policy);
                let by_log = policy.as_deref() == Some("FallbackToLogsOnError");
                if text.is_empty() && by_log && container.exit_code != Some(0) {
                    text = log_tail(&container.log_path);
                }
                self.memory.messages.insert(container.id.clone(), text);
            }
        }
    }
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
