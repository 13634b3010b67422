//! Konnectivity as its task on kubernetes.io sets it up: the egress configuration, the server's manifest and
//! kubeconfig on control, the agents' DaemonSet with what they and the server may do.
//!
//! Departs from the task's files in what a lab needs: servers and agents that find each other again in tenths
//! of a second, and agents that say which node and which pods they reach.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::build::CONTROL;
use super::control::{MANIFESTS, from_manifest, text};
use super::manifest::{Probe, StaticPod};
use super::{Bar, Contents, Credential, Kubeconfig, PlannedFile, RolePlan, Trust};
use crate::lab::paths::{Setting, Settings};

pub const NAME: &str = "konnectivity-server";
/// Who the server is to the API server.
const USER: &str = "system:konnectivity-server";
const AGENT: &str = "konnectivity-agent";
/// What an agent's token is for.
const AUDIENCE: &str = "system:konnectivity-server";
/// Handed to the API server when the tunnel is on.
pub const EGRESS: &str = "/etc/kubernetes/egress-selector-configuration.yaml";
const CONF: &str = "/etc/kubernetes/konnectivity-server.conf";
const SOCKET: &str = "/etc/kubernetes/konnectivity-server/konnectivity-server.socket";
const SERVER_IMAGE: &str = "registry.k8s.io/kas-network-proxy/proxy-server:v0.34.0";
const AGENT_IMAGE: &str = "registry.k8s.io/kas-network-proxy/proxy-agent:v0.34.0";
/// The task's ports for agents, admin and health.
const PORTS: [u16; 3] = [8132, 8133, 8134];

/// Whether the control plane reaches nodes by agents' tunnels.
pub fn wanted(settings: &Settings) -> bool {
    settings.hardened(Setting::EgressTunnel)
}

/// The server's role, where there is one.
pub fn role(settings: &Settings) -> Option<RolePlan> {
    wanted(settings).then(|| from_manifest(NAME))
}

/// With tunnels, nothing on control has business with the node site.
pub fn bars(settings: &Settings) -> Vec<Bar> {
    if wanted(settings) { vec![Bar { from: CONTROL, but: None }] } else { Vec::new() }
}

/// The files in control.
pub fn files(settings: &Settings) -> Vec<PlannedFile> {
    if !wanted(settings) {
        return Vec::new();
    }
    let kubeconfig = Kubeconfig {
        server: super::endpoint(),
        user: USER.into(),
        trust: Trust::ClusterCa,
        credential: Credential::Certificate(NAME.into()),
    };
    vec![
        PlannedFile { path: PathBuf::from(CONF), mode: 0o600, contents: Contents::Kubeconfig(kubeconfig) },
        text(EGRESS, 0o600, egress()),
        text(&format!("{MANIFESTS}/{NAME}.yaml"), 0o600, manifest(settings)),
    ]
}

fn egress() -> String {
    format!(
        "apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: GRPC
    transport:
      uds:
        udsName: {SOCKET}
"
    )
}

fn manifest(settings: &Settings) -> String {
    let [agents, admin, health] = PORTS;
    let mut flags = vec![
        "--logtostderr=true".to_owned(),
        format!("--uds-name={SOCKET}"),
        "--delete-existing-uds-file".into(),
        "--cluster-cert=/etc/kubernetes/pki/apiserver.crt".into(),
        "--cluster-key=/etc/kubernetes/pki/apiserver.key".into(),
        "--mode=grpc".into(),
        "--server-port=0".into(),
        format!("--agent-port={agents}"),
        format!("--admin-port={admin}"),
        format!("--health-port={health}"),
        // Its only door to others is the agents'.
        "--health-bind-address=127.0.0.1".into(),
        "--proxy-strategies=destHost,cidr,default".into(),
    ];
    if settings.hardened(Setting::EgressAgent) {
        flags.extend([
            "--agent-namespace=kube-system".into(),
            format!("--agent-service-account={AGENT}"),
            format!("--kubeconfig={CONF}"),
            format!("--authentication-audience={AUDIENCE}"),
        ]);
    }
    let probe = Probe {
        host: Ipv4Addr::LOCALHOST,
        port: health,
        live: "/healthz",
        ready: "/readyz",
        scheme: "HTTP",
        unanswered: false,
    };
    let pod = StaticPod { name: NAME, flags, cpu: "50m", probe: Some(probe), advertised: None };
    pod.to_yaml_of(SERVER_IMAGE, "/proxy-server")
}

/// What the server and its agents are to the API.
pub fn objects(settings: &Settings) -> Vec<Value> {
    if !wanted(settings) {
        return Vec::new();
    }
    let rbac = "rbac.authorization.k8s.io";
    let binding = |name: &str, role: &str, subject: Value| {
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role}, "subjects": [subject],
        })
    };
    let user = json!({"apiGroup": rbac, "kind": "User", "name": USER});
    let account = json!({"kind": "ServiceAccount", "name": AGENT, "namespace": "kube-system"});
    let mut all = vec![
        binding(USER, "system:auth-delegator", user),
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": AGENT, "namespace": "kube-system"},
        }),
        // An agent asks which pods are its node's.
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole",
            "metadata": {"name": "minilab:konnectivity-agent"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
        }),
        binding("minilab:konnectivity-agent", "minilab:konnectivity-agent", account),
        agents(),
    ];
    for object in &mut all {
        object["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "minilab".into();
    }
    all
}

fn agents() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": AGENT, "namespace": "kube-system", "labels": {"k8s-app": AGENT}},
        "spec": {
            "selector": {"matchLabels": {"k8s-app": AGENT}},
            "template": {"metadata": {"labels": {"k8s-app": AGENT}}, "spec": agent()},
        },
    })
}

fn agent() -> Value {
    let [agents, admin, health] = PORTS;
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let probe = |path: &str, delay: u8, period: u8| {
        json!({
            "httpGet": {"path": path, "port": health},
            "initialDelaySeconds": delay, "timeoutSeconds": 15, "periodSeconds": period,
        })
    };
    json!({
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"operator": "Exists"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "hostNetwork": true,
        "serviceAccountName": AGENT,
        // A tunnel's end waits for nobody.
        "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": AGENT,
            "image": AGENT_IMAGE,
            "command": ["/proxy-agent"],
            "args": [
                "--logtostderr=true",
                "--ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
                format!("--proxy-server-host={CONTROL}"),
                format!("--proxy-server-port={agents}"),
                format!("--admin-server-port={admin}"),
                format!("--health-server-port={health}"),
                "--sync-interval=100ms",
                "--sync-interval-cap=1s",
                "--service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token",
                "--agent-identifiers=ipv4=$(HOST_IP)&host=$(NODE_NAME)&cidr=auto",
            ],
            "env": [field("HOST_IP", "status.hostIP"), field("NODE_NAME", "spec.nodeName")],
            "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "30Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            },
            "livenessProbe": probe("/healthz", 15, 10),
            "readinessProbe": probe("/readyz", 0, 1),
            "volumeMounts": [{"mountPath": "/var/run/secrets/tokens", "name": "konnectivity-agent-token"}],
        }],
        "volumes": [{
            "name": "konnectivity-agent-token",
            "projected": {
                "sources": [{"serviceAccountToken": {"path": "konnectivity-agent-token", "audience": AUDIENCE}}],
            },
        }],
    })
}
