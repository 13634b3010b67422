//! What `explain` teaches of a setting beside its row: who dials whom, what an attacker gains, the rule of the
//! CIS benchmark (cis-1.12) that asks for it, and the probe.
//!
//! A **probe** is one read-only line of stock tools with the answers it can give, to be pasted on a real
//! cluster of one's own. A test runs each in both modes and wants different answers.

use super::Setting;

/// Where a probe is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// On a machine of the control plane.
    Control,
    /// On a node.
    Node,
    /// Wherever kubectl works.
    Kubectl,
}

/// One read-only line and what it answers: any of the texts of a mode.
#[derive(Debug)]
pub struct Probe {
    pub at: At,
    pub line: &'static str,
    pub insecure: &'static [&'static str],
    pub hardened: &'static [&'static str],
}

#[derive(Debug)]
pub struct Lesson {
    pub setting: Setting,
    pub dials: &'static str,
    pub gains: &'static str,
    pub cis: &'static str,
    pub probe: Probe,
}

/// The lesson of a setting.
pub fn lesson(setting: Setting) -> Option<&'static Lesson> {
    LESSONS.iter().find(|lesson| lesson.setting == setting)
}

/// A row: setting; who dials whom; what is gained; CIS; where, line, insecure and hardened answers.
macro_rules! lessons {
    ($(($setting:ident, $dials:literal, $gains:literal, $cis:literal, $at:ident, $line:literal, $insecure:expr, $hardened:expr)),+ $(,)?) => {
        &[$(Lesson {
            setting: Setting::$setting,
            dials: $dials,
            gains: $gains,
            cis: $cis,
            probe: Probe { at: At::$at, line: $line, insecure: &$insecure, hardened: &$hardened },
        }),+]
    };
}

const LESSONS: &[Lesson] = lessons![
    (
        NodeCa,
        "kubelet and kube-proxy dial the API server at 198.51.100.1:6443, across wire",
        "whoever stands between is the API server: it reads a token, or hands the node pods to run",
        "4.1.5, 4.1.6",
        Node,
        "grep -oE 'insecure-skip-tls-verify: true|certificate-authority-data' /etc/kubernetes/kubelet.conf",
        ["insecure-skip-tls-verify: true"],
        ["certificate-authority-data"]
    ),
    (
        NodeCredential,
        "the kubelet shows its credential to the API server at every request",
        "one node's file is every node's, and the cluster's",
        "4.2.10, 1.2.6",
        Node,
        "grep -oE 'token:|client-certificate:' /etc/kubernetes/kubelet.conf",
        ["token:"],
        ["client-certificate:"]
    ),
    (
        NodeRestriction,
        "the API server judges what a node writes",
        "a stolen node taints, labels and cordons the others, and reads every Secret",
        "1.2.14, 1.2.7",
        Control,
        "ps -C kube-apiserver -o args= | grep -oE '[=,]NodeRestriction' || echo absent",
        ["absent"],
        ["NodeRestriction"]
    ),
    (
        NodeJoin,
        "a joining node asks anybody for cluster-info and shows its token",
        "the bootstrap token, and with it a certificate for a node of the attacker's own",
        "",
        Node,
        "grep -oE 'unsafeSkipCAVerification: true|sha256:' /etc/kubernetes/kubeadm-join.yaml",
        ["unsafeSkipCAVerification: true"],
        ["sha256:"]
    ),
    (
        PodCa,
        "pods dial the kubernetes service at 10.96.0.1:443; kube-proxy leads them to 198.51.100.2:6443, across wire",
        "whoever stands between is shown the pod's token, and uses it as the pod until the token ends",
        "",
        Kubectl,
        "kubectl -n minilab-system get deployment phone-home -o yaml | grep -oE 'insecure-skip-tls-verify|certificate-authority=[^ ]+'",
        ["insecure-skip-tls-verify"],
        ["certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"]
    ),
    (
        PodToken,
        "pods show their account's token to the API server",
        "a copied token works long after its pod has gone",
        "1.2.30, 1.2.21",
        Control,
        "ps -C kube-apiserver -o args= | grep -oE 'extend-token-expiration=false' || echo 'extended to a year'",
        ["extended to a year"],
        ["extend-token-expiration=false"]
    ),
    (
        PodRbac,
        "pods show their account's token to the API server",
        "one pod's token is the whole cluster's key",
        "5.1.1, 5.1.5",
        Kubectl,
        "kubectl auth can-i get secrets -A --as system:serviceaccount:minilab-system:phone-home || true",
        ["yes"],
        ["no"]
    ),
    (
        PodExternalIps,
        "kube-proxy on every node leads what a Service claims to the Service's pods",
        "traffic for an address outside the cluster ends in the attacker's pod (CVE-2020-8554)",
        "1.2.3",
        Control,
        "ps -C kube-apiserver -o args= | grep -oE '[=,]DenyServiceExternalIPs' || echo absent",
        ["absent"],
        ["DenyServiceExternalIPs"]
    ),
    (
        ComponentsCa,
        "scheduler and controller manager dial the API server's load balancer at 198.51.100.1:6443",
        "a fake API server has its pods scheduled and its requests approved",
        "1.1.15, 1.1.17",
        Control,
        "grep -oE 'insecure-skip-tls-verify: true|certificate-authority-data' /etc/kubernetes/scheduler.conf",
        ["insecure-skip-tls-verify: true"],
        ["certificate-authority-data"]
    ),
    (
        ComponentsIdentity,
        "each component shows its own certificate, each controller its own account",
        "one leaked file of the control plane is cluster-admin",
        "1.3.3",
        Control,
        "ps -C kube-controller-manager -o args= | grep -oE 'use-service-account-credentials=[a-z]+'",
        ["use-service-account-credentials=false"],
        ["use-service-account-credentials=true"]
    ),
    (
        ComponentsPorts,
        "whoever reaches the control plane's host dials 10257 and 10259",
        "metrics, configuration and profiles of the control plane, without a credential",
        "1.3.2, 1.3.7, 1.4.1, 1.4.2",
        Control,
        "ss -Hltn 'sport = :10257'",
        ["0.0.0.0:10257", "*:10257"],
        ["127.0.0.1:10257"]
    ),
    (
        AccessAuthorization,
        "everybody dials the API server",
        "every credential, however small, is the administrator's",
        "1.2.6, 1.2.7, 1.2.8",
        Control,
        "ps -C kube-apiserver -o args= | grep -oE 'authorization-mode=[A-Za-z,]+'",
        ["authorization-mode=AlwaysAllow"],
        ["authorization-mode=Node,RBAC"]
    ),
    (
        AccessAnonymous,
        "everybody dials the API server",
        "no credential is needed at all",
        "1.2.1, 5.1.1",
        Kubectl,
        "kubectl auth can-i get secrets -A --as system:anonymous --as-group system:unauthenticated 2>&1 || true",
        ["yes"],
        ["no", "Forbidden"]
    ),
    (
        ToKubeletCa,
        "the API server dials kubelets at 192.0.2.x:10250, across wire, for logs, exec, attach, port-forward",
        "forged logs, the keystrokes of exec, the bytes of port-forward",
        "1.2.5",
        Control,
        "ps -C kube-apiserver -o args= | grep -oE 'kubelet-certificate-authority=[^ ]+' || echo 'not verified'",
        ["not verified"],
        ["kubelet-certificate-authority=/"]
    ),
    (
        ToKubeletServing,
        "the API server looks at the certificate a kubelet serves",
        "nothing alone; without it no API server can verify its kubelets",
        "1.3.6, 4.2.11, 4.2.9",
        Control,
        "openssl s_client -connect 192.0.2.11:10250 </dev/null 2>/dev/null | openssl x509 -noout -issuer",
        ["-ca@"],
        ["CN = kubernetes", "CN=kubernetes"]
    ),
    (
        ToKubeletApproval,
        "kubelets ask the API server for a certificate, somebody approves",
        "a stolen node gets its sibling's certificate and is believed",
        "5.1.11",
        Control,
        "ps -C csr-approver -o args= | grep -oE 'approve=[a-z-]+' || echo 'nobody approves'",
        ["approve=any"],
        ["approve=inventory"]
    ),
    (
        KubeletAuthentication,
        "whoever has a route dials kubelets at :10250",
        "pods with their environment, and with AlwaysAllow commands in them, for nobody in particular",
        "4.2.1, 4.2.3",
        Control,
        "curl -sk -o /dev/null -w '%{http_code}' https://192.0.2.11:10250/pods",
        ["200", "403"],
        ["401"]
    ),
    (
        KubeletAuthorization,
        "whoever has a route and any account's token dials kubelets at :10250",
        "commands in every pod of the node",
        "4.2.2",
        Kubectl,
        "kubectl get --raw /api/v1/nodes/node-1/proxy/configz | grep -oE '\"mode\": ?\"[A-Za-z]+\"'",
        ["AlwaysAllow"],
        ["Webhook"]
    ),
    (
        KubeletReadOnlyPort,
        "whoever has a route dials kubelets at :10255, in plain text",
        "pods with their environment, and metrics, without a credential or a cipher",
        "4.2.4",
        Control,
        "curl -s -o /dev/null -w '%{http_code}' http://192.0.2.11:10255/healthz || true",
        ["200"],
        ["000"]
    ),
    (
        KubeletGrants,
        "a monitoring account dials kubelets at :10250",
        "commands in every pod of every node, by a WebSocket, without an exec in the audit log",
        "5.1.10",
        Kubectl,
        "kubectl auth can-i get nodes --subresource=proxy --as system:serviceaccount:minilab-system:monitoring || true",
        ["yes"],
        ["no"]
    ),
    (
        ProxyTransport,
        "the API server dials pods, services and ports of nodes for whoever asks it to, across wire",
        "pages read in plain text; behind https: pages forged, since no certificate is checked and none is shown. \
         No flag makes it safe: a tunnel keeps it off the wire, and nothing more",
        "",
        Control,
        "grep -s proxyProtocol /etc/kubernetes/egress-selector-configuration.yaml || echo 'in the clear'",
        ["in the clear"],
        ["proxyProtocol: GRPC"]
    ),
    (
        ProxyGrants,
        "the API server dials pods and services, for whoever may ask it to",
        "pages of pods the asker cannot reach, fetched from the control plane's network",
        "5.1.3",
        Kubectl,
        "kubectl get clusterrole edit -o yaml | grep -oE -m1 'services/proxy' || echo 'not granted'",
        ["services/proxy"],
        ["not granted"]
    ),
    (
        EgressTunnel,
        "direct: the API server dials nodes and pods across wire; by ssh: it dials every node's port 22 and holds \
         the one key that opens them all; with Konnectivity the nodes' agents dial it, and nothing dials a node",
        "an open way into the node site: whoever has the control plane's place reaches every port there",
        "",
        Control,
        "ps -C kube-apiserver -o args= | grep -oE 'egress-selector-config-file=[^ ]+' || echo direct",
        ["direct"],
        ["egress-selector-config-file=/"]
    ),
    (
        EgressAgent,
        "agents dial konnectivity-server at 198.51.100.2:8132, across wire",
        "an agent of the attacker's is sent the API server's dials: forged logs and pages, or no answer at all",
        "",
        Control,
        "ps -C proxy-server,konnectivity-server -o args= | grep -oE '(agent-service-account|cluster-ca-cert)=[^ ]+' || echo 'any agent'",
        ["any agent"],
        ["agent-service-account=konnectivity-agent"]
    ),
    (
        EgressSshHostKey,
        "with ssh the API server dials sshd on every node at 192.0.2.x:22, across wire, and shows its login key; \
         no Kubernetes ever looked at the key the node shows",
        "whoever answers is the node: it is sent every dial, forges logs where kubelets are not verified, and a \
         copy of the login key on control opens every node",
        "",
        Control,
        "ps -C kube-apiserver -o args= | grep -oE 'ssh-known-hosts=[^ ]+' || echo 'any host key'",
        ["any host key"],
        ["ssh-known-hosts=/"]
    ),
];
