//! What a node's own files ask for, brought together with what runs, and with the API's mirrors of it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::dispatch::{Core, Desired, grace, tell};
use super::static_pods::{Source, is_static, mirror_of};
use super::view::Fate;

/// A pod whose predecessor still ends is tried again after this.
const AGAIN: Duration = Duration::from_millis(500);

/// The static pods as the files have them, and what of it is still to be done.
pub struct Files {
    source: Option<Source>,
    news: Option<mpsc::Receiver<Vec<Pod>>>,
    wanted: Vec<Pod>,
    waiting: bool,
}

impl Files {
    /// Begins to follow `staticPodPath`, if there is one.
    pub fn open(core: &Core) -> Self {
        let config = &core.me.config;
        let source = config.static_pods.clone().map(|path| Source {
            path,
            every: config.file_check,
            node: core.me.node.borrow().clone(),
        });
        let news = source.clone().map(|source| {
            let (tell, news) = mpsc::channel(1);
            tokio::spawn(source.follow(tell));
            news
        });
        Self { source, news, wanted: Vec::new(), waiting: false }
    }

    /// Reads and applies at once.
    pub fn now(&mut self, core: &Arc<Core>) {
        if let Some(source) = &self.source {
            self.wanted = source.read();
            self.apply(core);
        }
    }

    /// Returns when there is something to apply.
    pub async fn changed(&mut self) {
        let news = async {
            match &mut self.news {
                Some(news) => news.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(pods) = news => self.wanted = pods,
            () = tokio::time::sleep(AGAIN), if self.waiting => {}
            else => std::future::pending().await,
        }
    }

    /// Ends what no file asks for any more and begins what is new, once nothing of its name runs.
    pub fn apply(&mut self, core: &Arc<Core>) {
        let known = core.pods.list();
        let is_wanted = |pod: &Pod| self.wanted.iter().any(|one| one.metadata.uid == pod.metadata.uid);
        for pod in known.iter().filter(|pod| is_static(pod) && !is_wanted(pod)) {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            core.pods.with(|pods| {
                let Some(entry) = pods.get(&uid) else { return };
                let fate = Fate::Gone { grace_seconds: grace(pod) };
                entry.desired.send_if_modified(|desired| std::mem::replace(&mut desired.fate, fate) != fate);
            });
        }
        self.waiting = false;
        for pod in &self.wanted {
            let same_name = |one: &&Arc<Pod>| {
                is_static(one)
                    && one.metadata.name == pod.metadata.name
                    && one.metadata.namespace == pod.metadata.namespace
            };
            match known.iter().find(same_name) {
                Some(one) if one.metadata.uid == pod.metadata.uid => {}
                Some(_) => self.waiting = true,
                None => {
                    info!(pod = pod.metadata.name, "A file of this node asks for a pod");
                    let desired = Desired { pod: Arc::new(pod.clone()), fate: Fate::Wanted, mirrors_lost: 0 };
                    tell(core, desired);
                }
            }
        }
    }
}

/// A mirror in the API: one that is being deleted or mirrors nothing here is taken away for good.
pub fn mirrored(core: &Arc<Core>, pod: &Pod, hash: &str) {
    let stands = core.pods.list().iter().any(|one| one.metadata.uid.as_deref() == Some(hash));
    if stands && pod.metadata.deletion_timestamp.is_none() {
        return;
    }
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(core.me.client.clone(), &namespace);
    let name = pod.metadata.name.clone().unwrap_or_default();
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    tokio::spawn(async move {
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(&name, &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {}
            Err(error) => warn!(%error, pod = name, "Failed deleting a mirror pod"),
        }
    });
}

/// A mirror is gone from the API: the pod it stood for, if it still runs, gets another.
pub fn lost(core: &Arc<Core>, pod: &Pod) {
    debug_assert!(mirror_of(pod).is_some());
    core.pods.with(|pods| {
        for entry in pods.values() {
            let same = {
                let own = &entry.desired.borrow().pod;
                is_static(own)
                    && own.metadata.name == pod.metadata.name
                    && own.metadata.namespace == pod.metadata.namespace
            };
            if same {
                entry.desired.send_modify(|desired| desired.mirrors_lost += 1);
            }
        }
    });
}
