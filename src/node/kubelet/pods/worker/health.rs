//! Probes of running containers, and the events of waiting ones.

use k8s_openapi::api::core::v1::Pod;

use super::super::container_status::container_id;
use super::super::launch::field_path;
use super::super::memory::Health;
use super::super::probe::{self, Finding, News, Patient, Subject};
use super::super::step::Plan;
use super::super::view::Instance;
use super::{Worker, address};
use crate::client::events::Kind;
use crate::node::shim::SandboxStatus;

impl Worker {
    /// Takes in what a probe found.
    pub(super) fn hear(&mut self, news: News) {
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
    pub(super) fn observe_health(&mut self, pod: &Pod, sandboxes: &[SandboxStatus]) {
        let running: Vec<(String, String, String, String)> = sandboxes
            .iter()
            .flat_map(|sandbox| {
                sandbox.containers.iter().map(move |container| Instance { sandbox, container })
            })
            .filter(Instance::running)
            .map(|one| {
                let ip = address(one.sandbox)
                    .map_or_else(|| self.core.me.address.to_string(), |ip| ip.to_string());
                (one.container.name.clone(), one.container.id.clone(), ip, one.sandbox.id.clone())
            })
            .collect();
        self.probes.retain(|id, task| {
            let keep = running.iter().any(|(_, running, ..)| running == id);
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
            let Some((_, id, ip, sandbox)) = running.iter().find(|(name, ..)| *name == container.name) else {
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
            let told = told.flatten().find(|told| told.container_id == Some(container_id(id)));
            let started =
                container.startup_probe.is_none() || told.is_some_and(|told| told.started == Some(true));
            let ready =
                started && (container.readiness_probe.is_none() || told.is_some_and(|told| told.ready));
            self.memory.of(&container.name).health =
                Some(Health { id: id.clone(), started, ready, unhealthy: None });
            let subject = Subject {
                runtime: self.core.runtime.clone(),
                sandbox: sandbox.clone(),
                container: container.clone(),
                id: id.clone(),
                address: ip.clone(),
            };
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let named = (text(&pod.metadata.namespace), text(&pod.metadata.name), self.uid.clone());
            let counts = self.core.pods.probes();
            let news = self.findings.0.clone();
            let patient = Patient { subject, started, news, counts, pod: named };
            self.probes.insert(id.clone(), tokio::spawn(probe::observe(patient)).abort_handle());
        }
    }

    /// The events of a container that begins to wait.
    pub(super) fn tell_waiting(&mut self, pod: &Pod, plan: &Plan) {
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
}
