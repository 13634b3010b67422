//! One pod at one moment: what is wanted, what the shims see, what is remembered. Read-only.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};

use super::memory::Memory;
use crate::node::shim::{ContainerPhase, ContainerStatus, SandboxStatus};

/// What is to become of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Wanted,
    /// It has a deletion timestamp.
    Deleting {
        grace_seconds: i64,
    },
    /// The API no longer knows it.
    Gone {
        grace_seconds: i64,
    },
}

#[derive(Clone, Copy)]
pub struct View<'a> {
    pub pod: &'a Pod,
    pub fate: Fate,
    /// This pod's, the newest last.
    pub sandboxes: &'a [SandboxStatus],
    pub memory: &'a Memory,
    pub now: Timestamp,
}

/// A container instance and the sandbox it is in.
#[derive(Clone, Copy)]
pub struct Instance<'a> {
    pub sandbox: &'a SandboxStatus,
    pub container: &'a ContainerStatus,
}

impl Instance<'_> {
    pub fn running(&self) -> bool {
        self.container.phase != ContainerPhase::Exited
    }

    pub fn succeeded(&self) -> bool {
        !self.running() && self.container.exit_code == Some(0)
    }
}

impl<'a> View<'a> {
    pub fn spec(&self) -> &'a PodSpec {
        static NOTHING: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&NOTHING)
    }

    pub fn status(&self) -> Option<&'a PodStatus> {
        self.pod.status.as_ref()
    }

    pub fn init_containers(&self) -> &'a [Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    /// The ephemeral containers as containers, without what only they have.
    pub fn ephemeral_containers(&self) -> Vec<Container> {
        ephemeral_containers(self.spec())
    }

    /// The newest sandbox, also when it is over.
    pub fn current(&self) -> Option<&'a SandboxStatus> {
        self.sandboxes.last()
    }

    /// Every instance of a container, in all sandboxes.
    pub fn instances(&self, name: &str) -> impl Iterator<Item = Instance<'a>> {
        self.all().filter(move |instance| instance.container.name == name)
    }

    pub fn all(&self) -> impl Iterator<Item = Instance<'a>> {
        self.sandboxes.iter().flat_map(|sandbox| {
            sandbox.containers.iter().map(move |container| Instance { sandbox, container })
        })
    }

    /// The instance with the highest restart count.
    pub fn latest(&self, name: &str) -> Option<Instance<'a>> {
        self.instances(name).max_by_key(|instance| instance.container.attempt)
    }

    /// The latest instance, if it belongs to the current sandbox: init containers run anew in a new one.
    pub fn latest_here(&self, name: &str) -> Option<Instance<'a>> {
        let current = self.current()?;
        self.latest(name).filter(|instance| instance.sandbox.id == current.id)
    }

    /// The restart count of the next instance. What the API remembers counts where the shims' records are gone.
    pub fn next_attempt(&self, name: &str) -> u32 {
        if let Some(instance) = self.latest(name) {
            return instance.container.attempt + 1;
        }
        let told = self.status().and_then(|status| {
            let both = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
            both.into_iter().find(|told| told.name == name && told.container_id.is_some())
        });
        told.map_or(0, |told| u32::try_from(told.restart_count).map_or(0, |count| count + 1))
    }

    /// Whether the API remembers an ephemeral container whose shim's record is gone. They run only once.
    pub fn was_made(&self, name: &str) -> bool {
        let told = self.status().and_then(|status| status.ephemeral_container_statuses.as_ref());
        told.into_iter().flatten().any(|told| told.name == name && told.container_id.is_some())
    }

    /// Whether any of the pod's main containers was made in the current sandbox.
    pub fn initialized(&self) -> bool {
        self.current().is_some_and(|sandbox| {
            let mains = &self.spec().containers;
            sandbox.containers.iter().any(|made| mains.iter().any(|main| main.name == made.name))
        })
    }

    /// Whether a container counts as started: it runs and its startup probe, if any, has passed.
    pub fn started(&self, container: &Container) -> bool {
        let Some(instance) = self.latest_here(&container.name).filter(Instance::running) else {
            return false;
        };
        match &container.startup_probe {
            None => true,
            Some(_) => self
                .memory
                .health(&container.name, &instance.container.id)
                .is_some_and(|health| health.started),
        }
    }

    /// By the pod's policy, or the container's own (`Always` makes an init container a sidecar).
    pub fn should_restart(&self, container: &Container, instance: &Instance<'_>) -> bool {
        let pod = self.spec().restart_policy.as_deref().unwrap_or("Always");
        match container.restart_policy.as_deref().unwrap_or(pod) {
            "Always" => true,
            "OnFailure" => !instance.succeeded(),
            _ => false,
        }
    }

    /// Whether the API already knows the pod to be over.
    pub fn terminal(&self) -> bool {
        matches!(self.status().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
    }

    pub fn grace_seconds(&self) -> i64 {
        self.spec().termination_grace_period_seconds.unwrap_or(30)
    }

    /// When `activeDeadlineSeconds` is over.
    pub fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec().active_deadline_seconds?;
        let start = self.status()?.start_time.as_ref()?.0;
        start.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
    }
}

/// A pod's ephemeral containers (`kubectl debug`) as containers.
pub fn ephemeral_containers(spec: &PodSpec) -> Vec<Container> {
    let all = spec.ephemeral_containers.iter().flatten();
    // The two have the same fields but for the target.
    all.filter_map(|one| serde_json::from_value(serde_json::to_value(one).ok()?).ok()).collect()
}

/// A container of any sort by its name.
pub fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let found = plain.clone().find(|container| container.name == name).cloned();
    found.or_else(|| ephemeral_containers(spec).into_iter().find(|container| container.name == name))
}

/// An init container that keeps running beside the main ones.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A shim's time.
pub fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}
