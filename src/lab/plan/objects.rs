//! API objects the settings ask for: grants no cluster should have, and the accounts they are given to.
//!
//! What kubeadm itself puts into every cluster is the kubeadm role's; here is only what a setting owns.

use serde_json::{Value, json};

use super::edit_role::edit_role;
use super::{approver, konnectivity};
use crate::lab::paths::{Setting, Settings};

/// The namespace of the lab's own accounts.
const NAMESPACE: &str = "minilab-system";
/// The lab's own client: account, Deployment and label.
const PHONE: &str = "phone-home";

/// The objects of these settings, in the order they are to be created.
pub fn asked_for(settings: &Settings) -> Vec<Value> {
    let mut objects = vec![
        labelled(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})),
        account("monitoring"),
        monitoring_role(settings),
        binding("minilab:monitoring", "minilab:monitoring", subject_account("monitoring")),
    ];
    objects.push(account(PHONE));
    objects.push(phone_home(settings));
    objects.push(edit_role(settings));
    if settings.insecure(Setting::PodToken) {
        objects.push(legacy_token());
    }
    if settings.insecure(Setting::PodRbac) {
        objects.push(binding("minilab:phone-home", "cluster-admin", subject_account(PHONE)));
    }
    if approver::wanted(settings) {
        objects.push(approver_role());
        objects.push(binding("minilab:csr-approver", "minilab:csr-approver", subject_user(approver::USER)));
    }
    objects.extend(konnectivity::objects(settings));
    if settings.insecure(Setting::AccessAnonymous) {
        objects.push(binding("minilab:anonymous", "cluster-admin", subject_group("system:unauthenticated")));
    }
    if settings.insecure(Setting::NodeRestriction) {
        objects.push(binding("minilab:nodes", "system:node", subject_group("system:nodes")));
    }
    objects
}

/// What a monitoring stack is given out of habit, or what it needs.
fn monitoring_role(settings: &Settings) -> Value {
    let resources = match settings.hardened(Setting::KubeletGrants) {
        true => json!([
            "nodes/configz",
            "nodes/healthz",
            "nodes/log",
            "nodes/metrics",
            "nodes/pods",
            "nodes/stats"
        ]),
        false => json!(["nodes/proxy"]),
    };
    labelled(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "minilab:monitoring"},
        "rules": [{"apiGroups": [""], "resources": resources, "verbs": ["get"]}],
    }))
}

/// What an approver of kubelet serving certificates needs, and no more.
fn approver_role() -> Value {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let csr = "certificates.k8s.io";
    let mut signer = rule(csr, "signers", &["approve"]);
    signer["resourceNames"] = json!(["kubernetes.io/kubelet-serving"]);
    labelled(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "minilab:csr-approver"},
        "rules": [
            rule(csr, "certificatesigningrequests", &["get", "list", "watch"]),
            rule(csr, "certificatesigningrequests/approval", &["update"]),
            signer,
            rule("", "nodes", &["get"]),
            rule("", "events", &["create", "patch", "update"]),
            rule("events.k8s.io", "events", &["create", "patch", "update"]),
        ],
    }))
}

/// The one workload of the lab's own, which calls the API server as anybody's would. There is one pod of it at a
/// time, so that what is seen on the wire is its, old or new.
fn phone_home(settings: &Settings) -> Value {
    let trust = match settings.insecure(Setting::PodCa) {
        true => "--insecure-skip-tls-verify".to_owned(),
        false => "--certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt".to_owned(),
    };
    labelled(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": PHONE, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": PHONE}},
            "template": {
                "metadata": {"labels": {"app": PHONE}},
                "spec": {
                    "serviceAccountName": PHONE,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": PHONE, "image": "minilab/toolbox", "command": [PHONE, trust],
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                        },
                    }],
                },
            },
        },
    }))
}

fn account(name: &str) -> Value {
    labelled(json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": NAMESPACE},
    }))
}

/// A token that never ends, as every account had before v1.24.
fn legacy_token() -> Value {
    labelled(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "phone-home-token",
            "namespace": NAMESPACE,
            "annotations": {"kubernetes.io/service-account.name": "phone-home"},
        },
    }))
}

fn binding(name: &str, role: &str, subject: Value) -> Value {
    labelled(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }))
}

fn subject_account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE})
}

fn subject_user(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name})
}

fn subject_group(name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name})
}

/// Says whose object it is, so that `kubectl get -l` finds all of them.
fn labelled(mut object: Value) -> Value {
    object["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "minilab"});
    object
}
