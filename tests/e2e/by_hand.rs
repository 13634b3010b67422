//! Konnectivity set up by hand, as its task on kubernetes.io says: objects by kubectl, the server's certificate
//! by openssl, its manifest and the egress configuration by an editor. Only the server's address is the lab's.

use std::time::Duration;

use crate::kit::{Lab, eventually};
use crate::tunnels::logs;

const PATIENCE: Duration = Duration::from_secs(90);

const OBJECTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:konnectivity-server"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:konnectivity-server"}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: konnectivity-agent, namespace: kube-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: konnectivity-agent, namespace: kube-system, labels: {k8s-app: konnectivity-agent}}
spec:
  selector: {matchLabels: {k8s-app: konnectivity-agent}}
  template:
    metadata: {labels: {k8s-app: konnectivity-agent}}
    spec:
      priorityClassName: system-cluster-critical
      tolerations: [{key: CriticalAddonsOnly, operator: Exists}]
      containers:
      - name: konnectivity-agent
        image: us.gcr.io/k8s-artifacts-prod/kas-network-proxy/proxy-agent:v0.0.37
        command: [/proxy-agent]
        args: [--logtostderr=true, --ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt,
          --proxy-server-host=198.51.100.2, --proxy-server-port=8132, --admin-server-port=8133,
          --health-server-port=8134,
          --service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token]
        volumeMounts: [{mountPath: /var/run/secrets/tokens, name: konnectivity-agent-token}]
        livenessProbe: {httpGet: {port: 8134, path: /healthz}, initialDelaySeconds: 15, timeoutSeconds: 15}
      serviceAccountName: konnectivity-agent
      volumes:
      - name: konnectivity-agent-token
        projected:
          sources:
          - serviceAccountToken: {path: konnectivity-agent-token, audience: "system:konnectivity-server"}
"#;

const CONTROL: &str = r#"set -e
pki=/etc/kubernetes/pki
cd /root
openssl req -subj /CN=system:konnectivity-server -new -newkey rsa:2048 -nodes -out k.csr -keyout k.key
openssl x509 -req -in k.csr -CA $pki/ca.crt -CAkey $pki/ca.key -CAcreateserial -out k.crt -days 375 -sha256
cat > /etc/kubernetes/konnectivity-server.conf <<X
apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster: {server: "https://198.51.100.1:6443", certificate-authority-data: $(base64 -w0 $pki/ca.crt)}
users:
- name: konnectivity-server
  user: {client-certificate-data: $(base64 -w0 k.crt), client-key-data: $(base64 -w0 k.key)}
contexts: [{name: own, context: {cluster: kubernetes, user: konnectivity-server}}]
current-context: own
X
cat > /etc/kubernetes/egress-selector-configuration.yaml <<X
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: GRPC
    transport: {uds: {udsName: /etc/kubernetes/konnectivity-server/konnectivity-server.socket}}
X
cat > /etc/kubernetes/manifests/konnectivity-server.yaml <<X
apiVersion: v1
kind: Pod
metadata: {name: konnectivity-server, namespace: kube-system}
spec:
  hostNetwork: true
  containers:
  - name: konnectivity-server-container
    image: registry.k8s.io/kas-network-proxy/proxy-server:v0.0.37
    command: [/proxy-server]
    args: [--logtostderr=true,
      --uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket, --delete-existing-uds-file,
      --cluster-cert=/etc/kubernetes/pki/apiserver.crt, --cluster-key=/etc/kubernetes/pki/apiserver.key,
      --mode=grpc, --server-port=0, --agent-port=8132, --admin-port=8133, --health-port=8134,
      --agent-namespace=kube-system, --agent-service-account=konnectivity-agent,
      --kubeconfig=/etc/kubernetes/konnectivity-server.conf,
      --authentication-audience=system:konnectivity-server]
X
"#;

#[test]
fn the_tasks_own_files_make_a_tunnel() {
    let lab = Lab::up();
    lab.run("web", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done");
    lab.apply(OBJECTS);
    lab.on("control", &["sh", "-c", CONTROL]);
    eventually(PATIENCE, "two agents join", || {
        let page = ["curl", "-s", "-m", "5", "http://127.0.0.1:8134/metrics"];
        let ran = lab.minilab(&[&["exec", "control", "--"], &page[..]].concat());
        let line = "konnectivity_network_proxy_server_ready_backend_connections 2";
        if ran.stdout.lines().any(|own| own == line) { Ok(()) } else { Err(ran.stdout + &ran.stderr) }
    });
    lab.api_server_flags(&[
        "--egress-selector-config-file=/etc/kubernetes/egress-selector-configuration.yaml",
    ]);
    eventually(PATIENCE, "logs through the tunnel", || logs(&lab, "web"));
    lab.kubectl(&["delete", "daemonset", "-n", "kube-system", "konnectivity-agent"]).ok();
    eventually(PATIENCE, "without agents there is no way", || match lab.kubectl(&["logs", "web"]) {
        ran if ran.stderr.contains("No agent available") => Ok(()),
        ran => Err(format!("{}{}", ran.stdout, ran.stderr)),
    });
}
