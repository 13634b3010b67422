//! Before containers can start: address, sandbox, volumes, the files of /etc; and keeping them fresh.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tracing::warn;

use super::super::downward::Surroundings;
use super::super::etc::{self, Dns};
use super::super::step::Plan;
use super::super::volumes::Gather;
use super::super::{PodError, launch, spec};
use super::{REFRESH, Worker, address, after};
use crate::client::events::Kind;
use crate::node::shim::SandboxStatus;

impl Worker {
    /// Makes the sandbox and the volumes side by side: neither needs the other, only containers need both.
    pub(super) async fn prepare(
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

    pub(super) async fn try_prepare(
        &mut self,
        pod: &Arc<Pod>,
        sandboxes: &[SandboxStatus],
        attempt: Option<u32>,
        volumes: bool,
    ) -> Result<(), (Option<&'static str>, String)> {
        self.core.services.ready().await;
        if attempt.is_some_and(|attempt| attempt > 0) {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.reporter.event(Kind::Normal, "SandboxChanged", text.to_owned());
        }
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
            let mut spec = spec::sandbox(pod, attempt, address, &config.node_name, &config.pod_logs_dir);
            if address.is_some() {
                let named = etc::kernel_name(pod, &config.cluster_domain);
                spec.hostname =
                    named.map_err(|error| (Some("FailedCreatePodSandBox"), sandbox_text(&error)))?;
            }
            let made = self.core.runtime.run_sandbox(&spec).await.map(|_| ());
            made.map_err(|error| (Some("FailedCreatePodSandBox"), sandbox_text(&error.into())))?;
            let Some(address) = address else { return Ok(()) };
            let opened = self.core.host_ports.open(&self.uid, pod, address);
            opened.map_err(|error| (Some("FailedCreatePodSandBox"), sandbox_text(&error)))
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
    pub(super) fn write_etc(&self, pod: &Pod, address: Option<std::net::Ipv4Addr>) -> Result<(), PodError> {
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

    pub(super) fn surroundings(&self, pod_ip: Option<String>) -> Surroundings {
        let me = &self.core.me;
        Surroundings {
            host_ip: me.address,
            pod_ip: pod_ip.unwrap_or_else(|| me.address.to_string()),
            cpus: me.machine.cpus,
            memory_bytes: me.machine.memory_bytes,
            storage_bytes: me.machine.storage_bytes,
        }
    }

    /// Reads files that come from the API anew, in the background.
    pub(super) fn refresh_volumes(&mut self, pod: &Arc<Pod>, sandboxes: &[SandboxStatus], plan: &Plan) {
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
}

fn sandbox_text(error: &PodError) -> String {
    format!("Failed to create pod sandbox: {error}")
}
