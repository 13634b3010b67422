//! The Node authorizer: a kubelet reaches what the pods bound to its node reach, and its own objects
//! (`plugin/pkg/auth/authorizer/node`).
//!
//! Upstream keeps a graph of node ← pod ← (secret, configmap, claim, account); here its edges are read
//! off the pods and the volumes when they have changed. Left out: volume attachments, resource claims and
//! slices, which this server does not store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::super::lookup::text;
use super::super::registry;
use super::super::request::{RequestInfo, ResourceRequest};
use super::super::user::UserInfo;
use super::{Decision, Rule};
use crate::control::store::{Revision, Store};

/// A node's name from its user, if this is a node: `system:node:NAME` in the group `system:nodes`.
///
/// Some kubelets (those of a broken bootstrap) are nodes without a name; theirs is empty.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.in_group("system:nodes"))
}

pub(super) struct NodeAuthorizer {
    store: Store,
    rules: Vec<Rule>,
    graph: Mutex<Graph>,
    volumes: Mutex<Volumes>,
}

/// What one pod leads to.
struct Reached {
    node: String,
    namespace: String,
    name: String,
    account: String,
    secrets: Vec<String>,
    config_maps: Vec<String>,
    claims: Vec<String>,
}

/// What the volumes lead to: claims, and the Secrets their drivers need.
#[derive(Default)]
struct Volumes {
    revision: Revision,
    all: Vec<Volume>,
}

struct Volume {
    name: String,
    /// Namespace and name of the claim it is bound to.
    claim: (String, String),
    /// Namespace and name.
    secrets: Vec<(String, String)>,
}

#[derive(Default)]
struct Graph {
    revision: Revision,
    pods: HashMap<Arc<str>, (Revision, Option<Reached>)>,
}

/// What a path from an object to a node starts at.
#[derive(Debug, Clone, Copy)]
enum From {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    Volume,
    Account,
}

impl NodeAuthorizer {
    pub(super) fn new(store: Store) -> Self {
        Self { store, rules: node_rules(), graph: Mutex::default(), volumes: Mutex::default() }
    }

    pub(super) fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        let Some(node) = node_name(user) else { return Decision::no_opinion("") };
        if node.is_empty() {
            return Decision::no_opinion(format!("unknown node for user {:?}", user.name));
        }
        let Some(resource) = &info.resource else { return self.by_rules(info) };
        let asked = Asked { node, verb: &info.verb, resource };
        match (resource.group.as_str(), resource.resource.as_str()) {
            ("", "secrets") => self.read(&asked, From::Secret),
            ("", "configmaps") => self.read(&asked, From::ConfigMap),
            ("", "persistentvolumeclaims") if asked.resource.subresource == "status" => {
                self.claim_status(&asked)
            }
            ("", "persistentvolumeclaims") => self.get(&asked, From::Claim),
            ("", "persistentvolumes") => self.get(&asked, From::Volume),
            ("", "serviceaccounts") if asked.verb == "get" => self.get(&asked, From::Account),
            ("", "serviceaccounts") => self.account(&asked),
            ("", "nodes") => asked.node(),
            ("", "pods") => self.pod(&asked),
            ("coordination.k8s.io", "leases") => asked.lease(),
            ("storage.k8s.io", "csinodes") => asked.csi_node(),
            _ => self.by_rules(info),
        }
    }

    /// Everything else is the same for all nodes.
    fn by_rules(&self, info: &RequestInfo) -> Decision {
        match self.rules.iter().any(|rule| rule.allows(info)) {
            true => Decision::allow(),
            false => Decision::no_opinion(""),
        }
    }

    fn read(&self, asked: &Asked<'_>, from: From) -> Decision {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return Decision::no_opinion("can only read resources of this type");
        }
        if !asked.resource.subresource.is_empty() {
            return Decision::no_opinion("cannot read subresource");
        }
        if asked.resource.namespace.is_empty() {
            return Decision::no_opinion("can only read namespaced object of this type");
        }
        self.related(asked, from)
    }

    fn get(&self, asked: &Asked<'_>, from: From) -> Decision {
        if asked.verb != "get" {
            return Decision::no_opinion("can only get individual resources of this type");
        }
        if !asked.resource.subresource.is_empty() {
            return Decision::no_opinion("cannot get subresource");
        }
        self.related(asked, from)
    }

    /// A kubelet that grew a file system says so.
    fn claim_status(&self, asked: &Asked<'_>) -> Decision {
        match asked.verb {
            "get" | "update" | "patch" => self.related(asked, From::Claim),
            _ => Decision::no_opinion("can only get/update/patch this type"),
        }
    }

    fn account(&self, asked: &Asked<'_>) -> Decision {
        if asked.verb != "create" || asked.resource.name.is_empty() {
            return Decision::no_opinion("can only create tokens for individual service accounts");
        }
        if asked.resource.subresource != "token" {
            return Decision::no_opinion("can only create token subresource of serviceaccount");
        }
        self.related(asked, From::Account)
    }

    fn pod(&self, asked: &Asked<'_>) -> Decision {
        match (asked.resource.subresource.as_str(), asked.verb) {
            ("", "get") => self.get(asked, From::Pod),
            ("", "list" | "watch") => {
                if asked.selects_own_pods() {
                    return Decision::allow();
                }
                if !asked.resource.name.is_empty() {
                    return self.related(asked, From::Pod);
                }
                Decision::no_opinion("can only list/watch pods with spec.nodeName field selector")
            }
            // NodeRestriction limits these to the node's own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Decision::allow()
            }
            _ => Decision::no_opinion(""),
        }
    }

    fn related(&self, asked: &Asked<'_>, from: From) -> Decision {
        if asked.resource.name.is_empty() {
            return Decision::no_opinion("No Object name found");
        }
        match self.leads_to(asked, from) {
            true => Decision::allow(),
            false => Decision::no_opinion(format!(
                "no relationship found between node '{}' and this object",
                asked.node
            )),
        }
    }

    /// Whether some pod on the node leads from the object to it.
    fn leads_to(&self, asked: &Asked<'_>, from: From) -> bool {
        let (namespace, name) = (asked.resource.namespace.as_str(), asked.resource.name.as_str());
        let mut graph = self.graph.lock().expect("nothing panics while holding the lock");
        graph.follow(&self.store);
        let here = |holds: &dyn Fn(&Reached) -> bool| {
            graph
                .pods
                .values()
                .filter_map(|(_, reached)| reached.as_ref())
                .any(|pod| pod.node == asked.node && holds(pod))
        };
        let same = |pod: &Reached| pod.namespace == namespace;
        let has = |list: &[String]| list.iter().any(|own| own == name);
        let direct = match from {
            From::Pod => here(&|pod| same(pod) && pod.name == name),
            From::Secret => here(&|pod| same(pod) && has(&pod.secrets)),
            From::ConfigMap => here(&|pod| same(pod) && has(&pod.config_maps)),
            From::Claim => here(&|pod| same(pod) && has(&pod.claims)),
            From::Account => here(&|pod| same(pod) && pod.account == name),
            From::Volume => false,
        };
        if direct || !matches!(from, From::Secret | From::Volume) {
            return direct;
        }
        let mut volumes = self.volumes.lock().expect("nothing panics while holding the lock");
        volumes.follow(&self.store);
        let leads = |volume: &&Volume| match from {
            From::Volume => volume.name == name,
            _ => volume.secrets.iter().any(|(space, secret)| space == namespace && secret == name),
        };
        volumes.all.iter().filter(leads).any(|volume| {
            let (space, claim) = &volume.claim;
            here(&|pod| pod.namespace == *space && pod.claims.contains(claim))
        })
    }
}

/// One resource request of a node.
struct Asked<'a> {
    node: &'a str,
    verb: &'a str,
    resource: &'a ResourceRequest,
}

impl Asked<'_> {
    fn node(&self) -> Decision {
        let (own, name) = (self.node, self.resource.name.as_str());
        match (self.resource.subresource.as_str(), self.verb) {
            // NodeRestriction limits these to the node's own object.
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::allow(),
            ("", "get" | "list" | "watch") if name == own => Decision::allow(),
            ("", "get" | "list" | "watch") if name.is_empty() => {
                Decision::no_opinion(format!("node '{own}' cannot read all nodes, only its own Node object"))
            }
            ("", "get" | "list" | "watch") => {
                Decision::no_opinion(format!("node '{own}' cannot read '{name}', only its own Node object"))
            }
            _ => Decision::no_opinion(""),
        }
    }

    fn lease(&self) -> Decision {
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            return Decision::no_opinion("can only get, create, update, patch, or delete a node lease");
        }
        if self.resource.namespace != "kube-node-lease" {
            return Decision::no_opinion(
                "can only access leases in the \"kube-node-lease\" system namespace",
            );
        }
        // The name of what is created is not known here; NodeRestriction looks at it.
        if self.verb != "create" && self.resource.name != self.node {
            return Decision::no_opinion(
                "can only access node lease with the same name as the requesting node",
            );
        }
        Decision::allow()
    }

    fn csi_node(&self) -> Decision {
        if !self.resource.subresource.is_empty() {
            return Decision::no_opinion("cannot authorize CSINode subresources");
        }
        if !matches!(self.verb, "get" | "create" | "update" | "patch" | "delete") {
            return Decision::no_opinion("can only get, create, update, patch, or delete a CSINode");
        }
        if self.verb != "create" && self.resource.name != self.node {
            return Decision::no_opinion("can only access CSINode with the same name as the requesting node");
        }
        Decision::allow()
    }

    fn selects_own_pods(&self) -> bool {
        self.resource.field_selector.split(',').any(|term| {
            let value = term.trim().strip_prefix("spec.nodeName").and_then(|rest| rest.strip_prefix('='));
            value.is_some_and(|value| value.strip_prefix('=').unwrap_or(value) == self.node)
        })
    }
}

impl Graph {
    /// Catches up with the store's pods.
    fn follow(&mut self, store: &Store) {
        let bucket = &registry::by_name("", "pods").expect("the table has pods").bucket;
        let revision = store.bucket_revision(bucket);
        if revision == self.revision {
            return;
        }
        let Ok(page) = store.list(bucket, "", None, None, None) else { return };
        let mut before = std::mem::take(&mut self.pods);
        for entry in page.entries {
            let known = before.remove(&entry.key).filter(|(revision, _)| *revision == entry.mod_revision);
            let (_, reached) = known.unwrap_or_else(|| {
                (0, serde_json::from_slice(&entry.value).ok().and_then(|pod: Value| Reached::by(&pod)))
            });
            self.pods.insert(entry.key, (entry.mod_revision, reached));
        }
        self.revision = revision;
    }
}

impl Volumes {
    /// Catches up with the store's volumes.
    fn follow(&mut self, store: &Store) {
        let bucket = &registry::by_name("", "persistentvolumes").expect("the table has volumes").bucket;
        let revision = store.bucket_revision(bucket);
        if revision == self.revision {
            return;
        }
        let Ok(page) = store.list(bucket, "", None, None, None) else { return };
        let objects =
            page.entries.iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.value).ok());
        self.all = objects.map(|volume| Volume::by(&volume)).collect();
        self.revision = revision;
    }
}

impl Volume {
    fn by(volume: &Value) -> Self {
        let of = |pointer: &str| text(volume, pointer).to_owned();
        let claim = (of("/spec/claimRef/namespace"), of("/spec/claimRef/name"));
        let mut secrets = Vec::new();
        let mut keep = |source: &str, reference: &str| {
            let at = format!("/spec/{source}/{reference}");
            let name = of(&format!("{at}/name"));
            if !name.is_empty() {
                // A driver's Secret without a namespace is in the claim's.
                let space = of(&format!("{at}/namespace"));
                secrets.push((if space.is_empty() { claim.0.clone() } else { space }, name));
            }
        };
        for driver in DRIVERS {
            keep(driver, "secretRef");
        }
        for reference in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
            keep("csi", reference);
        }
        Self { name: of("/metadata/name"), claim, secrets }
    }
}

/// Volume drivers that name a Secret.
const DRIVERS: &[&str] = &["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];

impl Reached {
    /// Reads a pod. One without a node leads nowhere; the mirror of a static pod, which the node wrote
    /// itself, leads to nothing but the pod.
    fn by(pod: &Value) -> Option<Self> {
        let node = text(pod, "/spec/nodeName");
        if node.is_empty() {
            return None;
        }
        let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
        let mut reached = Self {
            node: node.into(),
            namespace: text(pod, "/metadata/namespace").into(),
            name: text(pod, "/metadata/name").into(),
            account: if mirror { String::new() } else { text(pod, "/spec/serviceAccountName").into() },
            secrets: Vec::new(),
            config_maps: Vec::new(),
            claims: Vec::new(),
        };
        if mirror {
            return Some(reached);
        }
        let spec = &pod["spec"];
        for secret in list(&spec["imagePullSecrets"]) {
            reached.secrets.push(text(secret, "/name").into());
        }
        for kind in ["containers", "initContainers", "ephemeralContainers"] {
            list(&spec[kind]).iter().for_each(|container| reached.container(container));
        }
        list(&spec["volumes"]).iter().for_each(|volume| reached.volume(volume));
        Some(reached)
    }

    fn container(&mut self, container: &Value) {
        for source in list(&container["envFrom"]) {
            self.keep(text(source, "/secretRef/name"), text(source, "/configMapRef/name"));
        }
        for variable in list(&container["env"]) {
            let secret = text(variable, "/valueFrom/secretKeyRef/name");
            self.keep(secret, text(variable, "/valueFrom/configMapKeyRef/name"));
        }
    }

    fn volume(&mut self, volume: &Value) {
        self.keep(text(volume, "/secret/secretName"), text(volume, "/configMap/name"));
        for source in list(&volume["projected"]["sources"]) {
            self.keep(text(source, "/secret/name"), text(source, "/configMap/name"));
        }
        let claim = text(volume, "/persistentVolumeClaim/claimName");
        if !claim.is_empty() {
            self.claims.push(claim.into());
        }
        if volume["ephemeral"].is_object() {
            self.claims.push(format!("{}-{}", self.name, text(volume, "/name")));
        }
        for driver in DRIVERS {
            self.keep(text(volume, &format!("/{driver}/secretRef/name")), "");
        }
        self.keep(text(volume, "/azureFile/secretName"), "");
        self.keep(text(volume, "/csi/nodePublishSecretRef/name"), "");
    }

    fn keep(&mut self, secret: &str, config_map: &str) {
        if !secret.is_empty() {
            self.secrets.push(secret.into());
        }
        if !config_map.is_empty() {
            self.config_maps.push(config_map.into());
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What is the same for every node: the parts of ClusterRole `system:node` not decided above.
fn node_rules() -> Vec<Rule> {
    super::super::bootstrap::rules_of("system:node")
}
