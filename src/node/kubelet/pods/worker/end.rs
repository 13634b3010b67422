//! The end of a pod: what it used is given back, the API forgets it, then this node does.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::task::AbortHandle;
use tracing::warn;

use super::super::super::api_text;
use super::super::spec;
use super::super::static_pods::is_static;
use super::super::view::Fate;
use super::Worker;
use crate::client::Backoff;
use crate::node::shim::SandboxStatus;

impl Worker {
    pub(super) fn quiet(&mut self) {
        self.probes.values().chain(&self.refresh).for_each(AbortHandle::abort);
        self.probes.clear();
    }

    /// A pod that has run its course: what it used is given back, what it said stays.
    pub(super) fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.quiet();
            self.dir.remove();
            self.core.host_ports.close(&self.uid);
            self.core.addresses.release(&self.uid);
        }
    }

    /// Nothing of the pod runs any more: says so, lets the API forget it, and forgets it here.
    pub(super) async fn finish(&mut self, pod: &Pod, fate: Fate, sandboxes: &[SandboxStatus]) {
        self.settle();
        if matches!(fate, Fate::Deleting { .. }) {
            self.reporter.flushed().await;
            self.delete(pod).await;
        }
        if is_static(pod) {
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

    pub(super) async fn delete(&self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.core.me.client.clone(), namespace);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        // A mirror has a uid of its own.
        let own = (!is_static(pod)).then(|| self.uid.clone());
        let preconditions = own.map(|uid| Preconditions { uid: Some(uid), resource_version: None });
        let parameters =
            DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
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
