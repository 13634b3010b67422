//! NodeRestriction: a kubelet writes its own Node, its own pods' status and tokens, and nothing of others
//! (`plugin/pkg/admission/noderestriction`).

use serde_json::Value;

use super::{Attributes, Context, Operation, certificates, list};
use crate::api::status::{Result, Status};
use crate::control::apiserver::authz::node_name;
use crate::control::apiserver::encode;
use crate::control::apiserver::lookup::{self, text};
use crate::control::apiserver::request::{RequestInfo, ResourceRequest};

const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";

pub(super) async fn admit(context: &Context, write: &Attributes) -> Result<()> {
    let Some(node) = node_name(&write.user) else { return Ok(()) };
    if node.is_empty() {
        return Err(write.forbidden(format!("could not determine node from user {:?}", write.user.name)));
    }
    let check = Check { context, write, node };
    match (write.group.as_str(), write.resource.as_str()) {
        ("", "pods") => check.pod(),
        ("", "nodes") => check.node(),
        ("", "persistentvolumeclaims") => check.claim(),
        ("", "serviceaccounts") => check.token().await,
        ("coordination.k8s.io", "leases") => check.lease(),
        ("storage.k8s.io", "csinodes") => {
            check.named_as_itself("can only access CSINode with the same name as the requesting node")
        }
        ("certificates.k8s.io", "certificatesigningrequests") => check.request(),
        _ => Ok(()),
    }
}

/// A node's write.
struct Check<'a> {
    context: &'a Context,
    write: &'a Attributes,
    node: &'a str,
}

impl Check<'_> {
    fn refuse<T>(&self, why: impl AsRef<str>) -> Result<T> {
        Err(self.write.forbidden(why))
    }

    fn pod(&self) -> Result<()> {
        let node = self.node;
        match (self.write.subresource.as_str(), self.write.operation) {
            ("", Operation::Create) => self.mirror_pod(),
            ("", Operation::Delete) => match self.write.old_text("/spec/nodeName") == node {
                true => Ok(()),
                false => self
                    .refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
            },
            ("", Operation::Update) => self.refuse(format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            )),
            ("status", _) => self.pod_status(),
            ("eviction", _) => {
                let pod =
                    lookup::object(&self.context.store, "", "pods", &self.write.namespace, &self.write.name);
                let pod = pod.ok_or_else(|| Status::not_found("", "pods", &self.write.name))?;
                match text(&pod, "/spec/nodeName") == node {
                    true => Ok(()),
                    false => self
                        .refuse(format!("node {node} can only evict pods with spec.nodeName set to itself")),
                }
            }
            (other, _) => self.refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
        }
    }

    /// A kubelet that grew a file system says so, and nothing else.
    fn claim(&self) -> Result<()> {
        let write = self.write;
        if write.subresource != "status" || write.operation != Operation::Update {
            return self.refuse("may only update PVC status");
        }
        let rest = |object: &Option<Value>| {
            let mut claim = object.clone().unwrap_or_default();
            for (part, fields) in [
                ("metadata", &["resourceVersion", "managedFields"][..]),
                ("status", &["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"]),
            ] {
                let inner = claim[part].as_object_mut();
                inner.into_iter().for_each(|inner| inner.retain(|name, _| !fields.contains(&name.as_str())));
            }
            encode::prune(&mut claim);
            claim
        };
        let (old, new) = (rest(&write.old), rest(&write.object));
        let differs = |part: &&&str| old[**part] != new[**part];
        let parts: Vec<&str> = ["metadata", "spec", "status"].iter().filter(differs).copied().collect();
        match parts.is_empty() {
            true => Ok(()),
            false => self.refuse(format!(
                "node {:?} is not allowed to update fields other than status.capacity and status.conditions: {}",
                self.node,
                parts.join(", ")
            )),
        }
    }

    fn mirror_pod(&self) -> Result<()> {
        let node = self.node;
        let Some(pod) = &self.write.object else { return Ok(()) };
        if pod.pointer(MIRROR).is_none() {
            return self.refuse(format!(
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
            ));
        }
        if text(pod, "/spec/nodeName") != node {
            return self
                .refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        let own =
            |owner: &Value| owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
        match list(&pod["metadata"]["ownerReferences"]) {
            [owner] if own(owner) => self.owned(owner)?,
            [_, _, ..] => {
                let what = "can only create pods with a single owner reference set to itself";
                return self.refuse(format!("node {node:?} {what}"));
            }
            _ => {
                return self.refuse(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                ));
            }
        }
        if !text(pod, "/spec/serviceAccountName").is_empty() {
            return self
                .refuse(format!("node {node:?} can not create pods that reference a service account"));
        }
        for (what, fields) in REFERENCES {
            if mentions(&pod["spec"], fields) {
                return self.refuse(format!("node {node:?} can not create pods that reference {what}"));
            }
        }
        Ok(())
    }

    /// The one owner of a mirror pod: this node, as its controller, and the node that is there now.
    fn owned(&self, owner: &Value) -> Result<()> {
        let node = self.node;
        if owner["controller"] != true {
            let what = "can only create pods with a controller owner reference set to itself";
            return self.refuse(format!("node {node:?} {what}"));
        }
        if owner["blockOwnerDeletion"] == true {
            return self
                .refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let found = lookup::object(&self.context.store, "", "nodes", "", node);
        let found = found.ok_or_else(|| Status::not_found("", "nodes", node))?;
        let (expected, got) = (text(owner, "/uid"), text(&found, "/metadata/uid"));
        match expected == got {
            true => Ok(()),
            false => self.refuse(format!("node {node} UID mismatch: expected {expected} got {got}")),
        }
    }

    fn pod_status(&self) -> Result<()> {
        let node = self.node;
        if self.write.old_text("/spec/nodeName") != node {
            let what = "can only update pod status for pods with spec.nodeName set to itself";
            return self.refuse(format!("node {node:?} {what}"));
        }
        if !modified_labels(self.write).is_empty() {
            return self.refuse(format!("node {node:?} cannot update labels through pod status"));
        }
        let part = |object: &Option<Value>, field: &str| {
            let found = object.as_ref().map(|object| object["status"][field].clone()).unwrap_or_default();
            Some(found).filter(|value| !value.is_null() && !value.as_array().is_some_and(Vec::is_empty))
        };
        for (field, what) in [
            ("resourceClaimStatuses", "resource claim statues"),
            ("extendedResourceClaimStatus", "extended resource claim status"),
        ] {
            if part(&self.write.object, field) != part(&self.write.old, field) {
                return self.refuse(format!("node {node:?} cannot update {what}"));
            }
        }
        Ok(())
    }

    fn node(&self) -> Result<()> {
        let (node, write) = (self.node, self.write);
        if write.name != node {
            return self.refuse(format!("node {node:?} is not allowed to modify node {:?}", write.name));
        }
        let forbidden: Vec<String> =
            modified_labels(write).into_iter().filter(|label| is_restricted(label)).collect();
        match write.operation {
            Operation::Create if !forbidden.is_empty() => self.refuse(format!(
                "node {node:?} is not allowed to set the following labels: {}",
                forbidden.join(", ")
            )),
            Operation::Update => {
                let part = |object: &Option<Value>, pointer: &str| {
                    object
                        .as_ref()
                        .and_then(|object| object.pointer(pointer))
                        .filter(|value| !list(value).is_empty())
                        .cloned()
                };
                let differs = |pointer: &str| part(&write.object, pointer) != part(&write.old, pointer);
                if differs("/metadata/ownerReferences") {
                    return self.refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
                }
                if differs("/spec/taints") {
                    return self.refuse(format!("node {node:?} is not allowed to modify taints"));
                }
                match forbidden.is_empty() {
                    true => Ok(()),
                    false => {
                        self.refuse(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
                    }
                }
            }
            _ => Ok(()),
        }
    }

    /// A token must be bound to a pod on this node, and be for somebody the pod talks to.
    async fn token(&self) -> Result<()> {
        let write = self.write;
        if write.subresource != "token" || write.operation != Operation::Create {
            return Ok(());
        }
        let bound = |field: &str| write.new_text(&format!("/spec/boundObjectRef/{field}"));
        if bound("apiVersion") != "v1" || bound("kind") != "Pod" || bound("name").is_empty() {
            return self.refuse("node requested token not bound to a pod");
        }
        let uid = bound("uid");
        if uid.is_empty() {
            return self.refuse("node requested token with a pod binding without a uid");
        }
        let pod = lookup::object(&self.context.store, "", "pods", &write.namespace, bound("name"));
        let pod = pod.ok_or_else(|| Status::not_found("", "pods", bound("name")))?;
        if text(&pod, "/metadata/uid") != uid {
            return self.refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            ));
        }
        if text(&pod, "/spec/nodeName") != self.node {
            return self.refuse("node requested token bound to a pod scheduled on a different node");
        }
        self.audience(&pod).await
    }

    async fn audience(&self, pod: &Value) -> Result<()> {
        let asked = self.write.object.as_ref().map_or(&[][..], |request| list(&request["spec"]["audiences"]));
        let audience = match asked {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        let mentions = |volume: &Value| {
            list(&volume["projected"]["sources"])
                .iter()
                .filter_map(|source| source.get("serviceAccountToken"))
                .any(|token| text(token, "/audience") == audience)
        };
        let mentioned = audience.is_empty() || list(&pod["spec"]["volumes"]).iter().any(mentions);
        match mentioned || self.may_ask_for(audience).await {
            true => Ok(()),
            false => self.refuse(format!(
                "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this \
                 audience",
                self.write.user.name
            )),
        }
    }

    /// An administrator may let nodes ask for an audience that no pod mentions.
    async fn may_ask_for(&self, audience: &str) -> bool {
        let resource = ResourceRequest {
            version: "v1".into(),
            namespace: self.write.namespace.clone(),
            resource: audience.into(),
            name: self.write.name.clone(),
            ..ResourceRequest::default()
        };
        let verb = "request-serviceaccounts-token-audience".into();
        let info = RequestInfo { verb, resource: Some(resource), ..RequestInfo::default() };
        self.context.authorizer.authorize(&self.write.user, &info).await.is_allowed()
    }

    fn lease(&self) -> Result<()> {
        if self.write.namespace != "kube-node-lease" {
            return self.refuse("can only access leases in the \"kube-node-lease\" system namespace");
        }
        self.named_as_itself("can only access node lease with the same name as the requesting node")
    }

    fn named_as_itself(&self, why: &str) -> Result<()> {
        if self.write.name == self.node { Ok(()) } else { self.refuse(why) }
    }

    fn request(&self) -> Result<()> {
        let write = self.write;
        let ours = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
        if write.operation != Operation::Create || !write.subresource.is_empty() {
            return Ok(());
        }
        if !ours.contains(&write.new_text("/spec/signerName")) {
            return Ok(());
        }
        let request = certificates::request_of(write)
            .map_err(|error| write.forbidden(format!("unable to parse csr: {error}")))?;
        let own = format!("system:node:{}", self.node);
        if request.cn == own {
            Ok(())
        } else {
            self.refuse(format!("can only create a node CSR with CN={own}"))
        }
    }
}

/// What a mirror pod may not reference, and the fields that would, wherever in the spec they stand.
const REFERENCES: &[(&str, &[&str])] = &[
    (
        "secrets",
        &["secret", "secretRef", "secretKeyRef", "imagePullSecrets", "nodePublishSecretRef", "secretName"],
    ),
    ("configmaps", &["configMap", "configMapRef", "configMapKeyRef"]),
    ("persistentvolumeclaims", &["persistentVolumeClaim"]),
    ("resourceclaims", &["resourceClaims"]),
    ("clustertrustbundles", &["clusterTrustBundle"]),
];

/// Whether any object within has one of these fields and something in it.
fn mentions(value: &Value, fields: &[&str]) -> bool {
    match value {
        Value::Object(object) => object.iter().any(|(name, inner)| {
            let there = match inner {
                Value::Array(list) => !list.is_empty(),
                Value::String(_) => name == "secretName",
                inner => inner.is_object(),
            };
            (there && fields.contains(&name.as_str())) || mentions(inner, fields)
        }),
        Value::Array(list) => list.iter().any(|inner| mentions(inner, fields)),
        _ => false,
    }
}

/// The labels that are added, changed or gone, sorted.
fn modified_labels(write: &Attributes) -> Vec<String> {
    let labels = |object: &Option<Value>| {
        object
            .as_ref()
            .and_then(|object| object["metadata"]["labels"].as_object())
            .cloned()
            .unwrap_or_default()
    };
    let (new, old) = (labels(&write.object), labels(&write.old));
    let mut keys: Vec<String> =
        new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key)).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Whether a label says something about a node that a node may not say itself.
fn is_restricted(label: &str) -> bool {
    let within = |namespace: &str, domain: &str| {
        namespace.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let Some((namespace, _)) = label.split_once('/') else { return false };
    if within(namespace, "node-restriction.kubernetes.io") {
        return true;
    }
    let reserved = within(namespace, "kubernetes.io") || within(namespace, "k8s.io");
    let kubelets = within(namespace, "kubelet.kubernetes.io") || within(namespace, "node.kubernetes.io");
    reserved && !kubelets && !KUBELET_LABELS.contains(&label)
}

/// What a kubelet may say of its node.
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
