//! Creates the Node, and keeps its status true.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeCondition, NodeStatus, ObjectReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::super::config::Config;
use super::super::machine::{Machine, address_towards};
use super::super::{KubeletError, api_text};
use super::object::{self, Facts, Readiness, labels, same, status};
use crate::client::events::{Kind, Recorder};
use crate::client::{Access, Backoff};
use crate::net::go_text;

/// How often the status is looked at (`nodeStatusUpdateFrequency`) and sent although nothing changed.
const LOOK: Duration = Duration::from_secs(10);
const SEND_SECONDS: i64 = 300;

/// A node the API server knows.
#[derive(Clone)]
pub struct Registered {
    pub config: Arc<Config>,
    pub machine: Arc<Machine>,
    pub client: Client,
    pub address: IpAddr,
    pub events: Recorder,
    /// As last seen.
    pub node: watch::Receiver<Node>,
}

impl Registered {
    /// The node's range of pod addresses, once it has one.
    pub fn pod_cidr(&self) -> Option<Ipv4Net> {
        pod_cidr(&self.node.borrow())
    }
}

fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    let cidr = node.spec.as_ref()?.pod_cidr.as_ref()?;
    cidr.parse().inspect_err(|_| warn!(cidr, "Node has a podCIDR that is no IPv4 network")).ok()
}

/// Registers, trying until the API server takes it. Returns with the sender that [`report`] feeds.
pub async fn register(
    config: Arc<Config>,
    machine: Arc<Machine>,
    client: Client,
) -> Result<(Registered, watch::Sender<Node>), KubeletError> {
    let address = match config.node_ip {
        Some(address) => address,
        None => Access::read(&config.kubeconfig)
            .ok()
            .and_then(|access| address_towards(&access.server))
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    let events = Recorder::new(client.clone(), "kubelet", &config.node_name);
    let node = create(&config, &machine, &client, address).await;
    info!(node = config.node_name, "Successfully registered node");
    let (sender, receiver) = watch::channel(node);
    Ok((Registered { config, machine, client, address, events, node: receiver }, sender))
}

async fn create(config: &Config, machine: &Machine, client: &Client, address: IpAddr) -> Node {
    let api: Api<Node> = Api::all(client.clone());
    let (readiness, images) = (Readiness::NoPodCidr, Vec::new());
    let facts = Facts { config, machine, address, readiness, images, now: Timestamp::now() };
    let (mut backoff, mut said) = (Backoff::new(), String::new());
    loop {
        let outcome = match config.register_node {
            true => api.create(&PostParams::default(), &object::node(&facts)).await,
            false => api.get(&config.node_name).await,
        };
        let outcome = match outcome {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                info!(node = config.node_name, "Node was previously registered");
                let change = json!({"metadata": {"labels": labels(config)}});
                api.patch(&config.node_name, &PatchParams::default(), &Patch::Strategic(change)).await
            }
            outcome => outcome,
        };
        match outcome {
            Ok(node) => return node,
            Err(error) => {
                let text = api_text(&error);
                if text != said {
                    warn!(error = text, node = config.node_name, "Unable to register node with API server");
                    said = text;
                }
                backoff.wait().await;
            }
        }
    }
}

/// Watches the node and sends its status: at once when it changes, else every five minutes. For ever.
pub async fn report(me: Registered, sender: watch::Sender<Node>) {
    let api: Api<Node> = Api::all(me.client.clone());
    let only = watcher::Config::default().fields(&format!("metadata.name={}", me.config.node_name));
    let mut seen = std::pin::pin!(watcher(api.clone(), only).backoff(Backoff::new()).applied_objects());
    let mut reporter =
        Reporter { sent: None, sent_at: Timestamp::UNIX_EPOCH, said: Vec::new(), images: Vec::new() };
    // Off this thread, and never in the way of the node's readiness.
    let (learn, mut learned) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || learn.blocking_send(object::images()));
    reporter.say(&me, "Starting", "Starting kubelet.".into());
    let mut backoff = Backoff::new();
    loop {
        if !reporter.send(&me, &api, &sender).await {
            backoff.wait().await;
            continue;
        }
        backoff.reset();
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some(images) = learned.recv() => reporter.images = images,
            node = seen.try_next() => match node {
                Ok(Some(node)) => { sender.send_replace(node); }
                Ok(None) => return,
                Err(error) => warn!(error = go_text(&error), "Watching the node failed"),
            },
        }
    }
}

/// What was reported last.
struct Reporter {
    sent: Option<NodeStatus>,
    sent_at: Timestamp,
    said: Vec<&'static str>,
    images: Vec<ContainerImage>,
}

impl Reporter {
    /// Sends what has to be sent; false when the API server did not take it.
    async fn send(&mut self, me: &Registered, api: &Api<Node>, sender: &watch::Sender<Node>) -> bool {
        let now = Timestamp::now();
        let readiness = match me.pod_cidr() {
            Some(_) => Readiness::Ready,
            None => Readiness::NoPodCidr,
        };
        let ready = readiness == Readiness::Ready;
        let images = self.images.clone();
        let facts =
            Facts { config: &me.config, machine: &me.machine, address: me.address, readiness, images, now };
        let known = sender.borrow().status.clone();
        let status = status(&facts, known.as_ref().or(self.sent.as_ref()));
        let due = now.as_second() - self.sent_at.as_second() >= SEND_SECONDS;
        // Somebody who missed us may have written `Unknown` over what we said.
        let turned = turned(known.as_ref(), &status);
        if !due && turned.is_empty() && self.sent.as_ref().is_some_and(|sent| same(sent, &status)) {
            return true;
        }
        let change = Patch::Strategic(json!({ "status": whole(&status) }));
        match api.patch_status(&me.config.node_name, &PatchParams::default(), &change).await {
            Ok(node) => {
                // The watch may already have brought something newer; only the first answer counts for it.
                sender.send_replace(node);
                (self.sent, self.sent_at) = (Some(status), now);
                self.said.retain(|reason| !turned.contains(reason));
                self.tell(me, ready);
                true
            }
            Err(error) => {
                warn!(error = api_text(&error), "Error updating node status, will retry");
                false
            }
        }
    }

    /// The events of a start, each once, and again when the node was given up meanwhile.
    fn tell(&mut self, me: &Registered, ready: bool) {
        let name = &me.config.node_name;
        let states = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
        for reason in states.into_iter().chain(ready.then_some("NodeReady")) {
            self.say(me, reason, format!("Node {name} status is now: {reason}"));
        }
        self.say(me, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods".into());
    }

    fn say(&mut self, me: &Registered, reason: &'static str, message: String) {
        if !self.said.contains(&reason) {
            self.said.push(reason);
            me.events.event(&reference(&me.config.node_name), Kind::Normal, reason, message);
        }
    }
}

/// A status with what it does not have spelled out, so that a patch takes that away: a kubelet started with
/// a gate off declares the feature no longer.
fn whole(status: &NodeStatus) -> Value {
    let mut whole = json!(status);
    if status.declared_features.is_none() {
        whole["declaredFeatures"] = Value::Null;
    }
    whole
}

/// The reasons of the conditions that the API server holds with another status than they have.
fn turned(known: Option<&NodeStatus>, now: &NodeStatus) -> Vec<&'static str> {
    let list = |status: &NodeStatus| status.conditions.clone().unwrap_or_default();
    let known = known.map(list).unwrap_or_default();
    let differs = |condition: &NodeCondition| {
        known.iter().any(|held| held.type_ == condition.type_ && held.status != condition.status)
    };
    let reason = |condition: NodeCondition| match condition.type_.as_str() {
        "Ready" => "NodeReady",
        "MemoryPressure" => "NodeHasSufficientMemory",
        "DiskPressure" => "NodeHasNoDiskPressure",
        "PIDPressure" => "NodeHasSufficientPID",
        _ => "",
    };
    list(now).into_iter().filter(differs).map(reason).collect()
}

/// A node in an event: upstream's kubelet puts the name where the uid belongs, and kubectl looks for that.
pub fn reference(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        name: Some(name.into()),
        uid: Some(name.into()),
        ..ObjectReference::default()
    }
}
