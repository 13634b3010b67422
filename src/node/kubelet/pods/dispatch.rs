//! Who wakes which worker: the API's watch, the shims' news, a start after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::super::node::Registered;
use super::PodError;
use super::address::Addresses;
use super::files::{Files, lost, mirrored};
use super::host_ports::HostPorts;
use super::probe::Counts;
use super::services::Services;
use super::static_pods::{is_static, mirror_of};
use super::view::Fate;
use super::volumes::PodDir;
use super::worker::Worker;
use crate::client::Backoff;
use crate::net::go_text;
use crate::node::shim::{Runtime, SandboxStatus};

/// Where the `host-local` plugin keeps its files.
const ADDRESSES: &str = "/var/lib/cni/networks/minilab";
/// The loop goes round this often, also when nothing happens; it is stuck when it has not for so long.
const BEAT: Duration = Duration::from_secs(60);
const STUCK_SECONDS: i64 = 300;
/// What a pod gets that nobody knows any more.
const ORPHAN_GRACE_SECONDS: i64 = 2;

/// What all workers share.
pub struct Core {
    pub me: Registered,
    pub runtime: Runtime,
    pub addresses: Addresses,
    pub host_ports: HostPorts,
    pub services: Services,
    pub pods: Pods,
}

/// A pod as it should be.
#[derive(Debug, Clone)]
pub struct Desired {
    pub pod: Arc<Pod>,
    pub fate: Fate,
    /// Of a static pod: how often the API's mirror of it went away.
    pub mirrors_lost: u32,
}

/// The pods of this node, by uid.
#[derive(Clone, Default)]
pub struct Pods {
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    /// When the loop went round last, in seconds since 1970.
    beat: Arc<AtomicI64>,
    probes: Counts,
}

pub(super) struct Entry {
    pub(super) desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    /// As this kubelet sees it; the API may know it a little later.
    status: Option<PodStatus>,
}

impl Entry {
    fn pod(&self) -> Pod {
        let mut pod = Pod::clone(&self.desired.borrow().pod);
        if self.status.is_some() {
            pod.status.clone_from(&self.status);
        }
        pod
    }
}

impl Pods {
    /// The loop that hands pods to their workers went round.
    fn beat(&self) {
        self.beat.store(Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// Whether that loop has begun and not gone round for minutes (`SyncLoopHealthCheck`).
    pub fn is_stuck(&self) -> bool {
        let last = self.beat.load(Ordering::Relaxed);
        last != 0 && Timestamp::now().as_second() - last > STUCK_SECONDS
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Entry>) -> T) -> T {
        work(&mut self.entries.lock().expect("nothing panics while holding the lock"))
    }

    /// Every pod, as the API last told.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.with(|pods| pods.values().map(|entry| Arc::clone(&entry.desired.borrow().pod)).collect())
    }

    /// Every pod with its status as of now.
    pub fn list_with_status(&self) -> Vec<Pod> {
        self.with(|pods| pods.values().map(Entry::pod).collect())
    }

    pub fn find_with_status(&self, namespace: &str, name: &str) -> Option<Pod> {
        let fits = |pod: &Pod| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        self.with(|pods| pods.values().find(|entry| fits(&entry.desired.borrow().pod)).map(Entry::pod))
    }

    /// Keeps what a worker found out.
    pub fn note(&self, uid: &str, status: &PodStatus) {
        self.with(|pods| {
            if let Some(entry) = pods.get_mut(uid) {
                entry.status = Some(status.clone());
            }
        });
    }

    /// Pods beside this one that still use the node; what the API has let go makes room at once, as upstream.
    pub fn active(&self, but: &str) -> Vec<Arc<Pod>> {
        let over = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            matches!(phase, Some("Succeeded" | "Failed"))
        };
        let kept = |entry: &Entry| {
            let desired = entry.desired.borrow();
            let gone = matches!(desired.fate, Fate::Gone { .. });
            (!gone && !over(&desired.pod)).then(|| Arc::clone(&desired.pod))
        };
        let mut all: Vec<Arc<Pod>> = self.with(|pods| pods.values().filter_map(kept).collect());
        all.retain(|pod| pod.metadata.uid.as_deref() != Some(but));
        all
    }

    /// How its pods' probes went.
    pub fn probes(&self) -> Counts {
        self.probes.clone()
    }

    pub fn remove(&self, uid: &str) {
        self.probes.forget(uid);
        self.with(|pods| pods.remove(uid));
    }

    fn wake(&self, uid: &str) {
        self.with(|pods| {
            if let Some(entry) = pods.get(uid) {
                entry.wake.notify_one();
            }
        });
    }
}

/// Runs this node's pods for ever. What was running when the last kubelet ended is taken over first.
pub async fn run(me: Registered, runtime: Runtime, pods: Pods) -> Result<(), PodError> {
    let mut news = runtime.events();
    let found = runtime.sandboxes().await?;
    info!(sandboxes = found.len(), "Adopted what was running");
    let services = Services::watch(me.client.clone());
    let addresses = Addresses::load(Path::new(ADDRESSES))?;
    let host_ports = HostPorts::load()?;
    let core = Arc::new(Core { me, runtime, addresses, host_ports, services, pods });
    let api: Api<Pod> = Api::all(core.me.client.clone());
    let here = watcher::Config::default().fields(&format!("spec.nodeName={}", core.me.config.node_name));
    let mut events = std::pin::pin!(watcher(api, here).backoff(Backoff::new()));
    let mut listed = BTreeSet::new();
    let mut files = Files::open(&core);
    // Before the first list: what a file asked for is nobody's orphan.
    files.now(&core);
    loop {
        core.pods.beat();
        let event = tokio::select! {
            () = files.changed() => {
                files.apply(&core);
                continue;
            }
            Some(uid) = next(&mut news) => {
                core.pods.wake(&uid);
                continue;
            }
            () = tokio::time::sleep(BEAT) => continue,
            event = events.next() => event,
        };
        match event {
            Some(Ok(watcher::Event::Init)) => listed.clear(),
            Some(Ok(watcher::Event::InitApply(pod))) => {
                listed.insert(pod.metadata.uid.clone().unwrap_or_default());
                apply(&core, pod);
            }
            Some(Ok(watcher::Event::InitDone)) => listing_done(&core, &listed),
            Some(Ok(watcher::Event::Apply(pod))) => apply(&core, pod),
            Some(Ok(watcher::Event::Delete(pod))) => gone(&core, &pod),
            Some(Err(error)) => warn!(error = go_text(&error), "Watching pods failed"),
            None => return Ok(()),
        }
    }
}

async fn next(news: &mut Option<tokio::sync::mpsc::UnboundedReceiver<String>>) -> Option<String> {
    match news {
        Some(news) => news.recv().await,
        None => std::future::pending().await,
    }
}

fn apply(core: &Arc<Core>, mut pod: Pod) {
    if let Some(hash) = mirror_of(&pod) {
        return mirrored(core, &pod, hash);
    }
    // Nobody here reads it, and it is a good part of the object.
    pod.metadata.managed_fields = None;
    let fate = match pod.metadata.deletion_timestamp {
        Some(_) => Fate::Deleting { grace_seconds: grace(&pod) },
        None => Fate::Wanted,
    };
    tell(core, Desired { pod: Arc::new(pod), fate, mirrors_lost: 0 });
}

fn gone(core: &Arc<Core>, pod: &Pod) {
    if mirror_of(pod).is_some() {
        return lost(core, pod);
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    core.pods.with(|pods| {
        if let Some(entry) = pods.get(&uid) {
            let grace_seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(ORPHAN_GRACE_SECONDS);
            entry.desired.send_modify(|desired| desired.fate = Fate::Gone { grace_seconds });
        }
    });
}

pub(super) fn grace(pod: &Pod) -> i64 {
    let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    pod.metadata.deletion_grace_period_seconds.or(own).unwrap_or(30)
}

/// Hands a pod to its worker; makes the worker if need be.
pub(super) fn tell(core: &Arc<Core>, desired: Desired) {
    let uid = desired.pod.metadata.uid.clone().unwrap_or_default();
    let fresh = core.pods.with(|pods| match pods.get(&uid) {
        Some(entry) => {
            entry.desired.send_if_modified(|now| {
                let news = matters(now, &desired);
                *now = desired;
                news
            });
            None
        }
        None => {
            let (sender, receiver) = watch::channel(desired);
            let wake = Arc::new(Notify::new());
            pods.insert(uid, Entry { desired: sender, wake: Arc::clone(&wake), status: None });
            Some((receiver, wake))
        }
    });
    if let Some((receiver, wake)) = fresh {
        tokio::spawn(Worker::new(Arc::clone(core), receiver, wake).run());
    }
}

/// Our own status coming back is no news.
fn matters(old: &Desired, new: &Desired) -> bool {
    let gates = |pod: &Pod| {
        let gated = pod.spec.as_ref().is_some_and(|spec| spec.readiness_gates.is_some());
        pod.status.clone().filter(|_| gated)
    };
    let plain = |pod: &Pod| {
        let meta = &pod.metadata;
        (meta.labels.clone(), meta.annotations.clone(), meta.deletion_grace_period_seconds)
    };
    old.fate != new.fate
        || old.pod.spec != new.pod.spec
        || plain(&old.pod) != plain(&new.pod)
        || gates(&old.pod) != gates(&new.pod)
}

/// After a full list: pods that are not in it are gone, and what runs for nobody is ended.
fn listing_done(core: &Arc<Core>, listed: &BTreeSet<String>) {
    core.pods.with(|pods| {
        for (uid, entry) in pods.iter().filter(|(uid, _)| !listed.contains(*uid)) {
            if is_static(&entry.desired.borrow().pod) {
                // Its mirror may have gone unheard.
                entry.desired.send_modify(|desired| desired.mirrors_lost += 1);
                continue;
            }
            info!(pod = uid, "Pod is no longer in the API");
            entry
                .desired
                .send_modify(|desired| desired.fate = Fate::Gone { grace_seconds: ORPHAN_GRACE_SECONDS });
        }
    });
    let known: BTreeSet<String> = core.pods.with(|pods| pods.keys().cloned().collect());
    for sandbox in core.runtime.known_sandboxes() {
        if !known.contains(&sandbox.spec.pod_uid) {
            tell(
                core,
                Desired {
                    pod: Arc::new(orphan(&sandbox)),
                    fate: Fate::Gone { grace_seconds: ORPHAN_GRACE_SECONDS },
                    mirrors_lost: 0,
                },
            );
        }
    }
    let living: BTreeSet<String> = core.pods.with(|pods| pods.keys().cloned().collect());
    core.addresses.retain(|uid| living.contains(uid));
    core.host_ports.retain(|uid| living.contains(uid));
    sweep(core, &living);
}

/// As much of a pod as its sandbox remembers.
fn orphan(sandbox: &SandboxStatus) -> Pod {
    let spec = &sandbox.spec;
    Pod {
        metadata: ObjectMeta {
            name: Some(spec.pod_name.clone()),
            namespace: Some(spec.pod_namespace.clone()),
            uid: Some(spec.pod_uid.clone()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    }
}

/// Directories of pods that were forgotten while no kubelet ran.
fn sweep(core: &Core, living: &BTreeSet<String>) {
    let root = &core.me.config.root_dir;
    for entry in std::fs::read_dir(root.join("pods")).into_iter().flatten().flatten() {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if !living.contains(&uid) {
            PodDir::new(root, &uid).remove();
        }
    }
}
