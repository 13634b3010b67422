//! The addons of a new cluster: CoreDNS as kubeadm puts it, the agent that enforces NetworkPolicies, and a
//! default StorageClass.
//!
//! Upstream: `cmd/kubeadm/app/phases/addons/dns` and `sigs.k8s.io/kube-network-policies`. Both are the
//! built-in image, which has this very binary in it. One replica of CoreDNS where kubeadm has two: a lab
//! counts megabytes, and `kubectl -n kube-system scale` gives more.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

/// The image that has the binary under all its names.
const IMAGE: &str = "minilab/toolbox";
const SYSTEM: &str = "kube-system";

/// What a cluster's addons need to know of it.
pub struct Network {
    pub service_range: Ipv4Net,
    pub domain: String,
}

impl Network {
    /// kubeadm's choice: the tenth address of the service range.
    fn dns_address(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_range.network()) + 10)
    }
}

/// Everything the addons consist of, what others refer to first.
pub fn objects(network: &Network) -> Vec<Value> {
    let mut all = dns(network);
    all.extend(network_policies());
    all.push(storage_class());
    all
}

/// What claims get that name no class: directories of the node their first pod runs on.
fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "minilab/local-path", "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    })
}

fn dns(network: &Network) -> Vec<Value> {
    let mut all = account(
        "coredns",
        "system:coredns",
        json!([
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]),
    );
    all.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": SYSTEM},
        "data": {"Corefile": corefile(&network.domain)},
    }));
    all.push(dns_service(network));
    all.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": SYSTEM, "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "template": {"metadata": {"labels": {"k8s-app": "kube-dns"}}, "spec": dns_pod()},
        },
    }));
    all
}

fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

fn dns_service(network: &Network) -> Value {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "port": port, "protocol": protocol, "targetPort": port});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": SYSTEM,
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
            "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "clusterIP": network.dns_address(),
            "ports": [port("dns", "UDP", 53), port("dns-tcp", "TCP", 53), port("metrics", "TCP", 9153)],
            "selector": {"k8s-app": "kube-dns"},
        },
    })
}

fn dns_pod() -> Value {
    json!({
        "priorityClassName": "system-cluster-critical",
        "serviceAccountName": "coredns",
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "dnsPolicy": "Default",
        "containers": [{
            "name": "coredns",
            "image": IMAGE,
            "command": ["coredns"],
            "args": ["-conf", "/etc/coredns/Corefile"],
            "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
            "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}],
            "ports": [
                {"containerPort": 53, "name": "dns", "protocol": "UDP"},
                {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
                {"containerPort": 9153, "name": "metrics", "protocol": "TCP"},
            ],
            "livenessProbe": {
                "httpGet": {"path": "/health", "port": 8080, "scheme": "HTTP"},
                "initialDelaySeconds": 60, "timeoutSeconds": 5, "successThreshold": 1, "failureThreshold": 5,
            },
            // Every second, where kubeadm leaves ten: a lab should have names soon.
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181, "scheme": "HTTP"}, "periodSeconds": 1},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            },
        }],
        "volumes": [{
            "name": "config-volume",
            "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]},
        }],
    })
}

/// One agent a node, in the node's network, that may read what policies are about and nothing else.
fn network_policies() -> Vec<Value> {
    const NAME: &str = "kube-network-policies";
    let mut all = account(
        NAME,
        NAME,
        json!([
            {"apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["list", "watch"]},
        ]),
    );
    let labels = json!({"app": NAME, "k8s-app": NAME});
    all.push(json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": SYSTEM, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": true,
                    "dnsPolicy": "ClusterFirst",
                    "priorityClassName": "system-node-critical",
                    "serviceAccountName": NAME,
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [{"operator": "Exists", "effect": "NoSchedule"}],
                    "containers": [{
                        "name": NAME,
                        "image": IMAGE,
                        "command": [NAME],
                        "env": [{"name": "MY_NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                        "resources": {"requests": {"cpu": "100m", "memory": "50Mi"}},
                        "securityContext": {
                            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                        },
                    }],
                },
            },
        },
    }));
    all
}

/// A service account in kube-system with a cluster role of its own.
fn account(name: &str, role: &str, rules: Value) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SYSTEM},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": role}, "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}],
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addons_are_named_as_kubeadm_names_them_and_dns_has_the_tenth_address() {
        let network =
            Network { service_range: "10.96.0.0/12".parse().unwrap(), domain: "cluster.local".into() };
        let all = objects(&network);
        let find = |kind: &str, name: &str| {
            let found = all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name);
            found.unwrap_or_else(|| panic!("no {kind} {name}"))
        };
        assert_eq!(find("Service", "kube-dns")["spec"]["clusterIP"], "10.96.0.10");
        assert!(
            find("ConfigMap", "coredns")["data"]["Corefile"]
                .as_str()
                .unwrap()
                .contains("kubernetes cluster.local ")
        );
        let selector = &find("Deployment", "coredns")["spec"]["selector"]["matchLabels"];
        assert_eq!(*selector, find("Service", "kube-dns")["spec"]["selector"]);
        find("ClusterRoleBinding", "system:coredns");
        find("DaemonSet", "kube-network-policies");
    }
}
