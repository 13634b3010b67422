//! Konnectivity set up by hand, as its task on kubernetes.io says: objects by kubectl, the server's certificate
//! by openssl, its manifest and the egress configuration by an editor. Only the server's address is the lab's,
//! and the images are named without a registry that exists.

use std::time::Duration;

use crate::kit::{Lab, eventually};
use crate::tunnels::logs;

const PATIENCE: Duration = Duration::from_secs(180);

/// RBAC and the agents.
const OBJECTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:konnectivity-server", labels: {kubernetes.io/cluster-service: "true"}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "system:konnectivity-server"}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: konnectivity-agent, namespace: kube-system, labels: {kubernetes.io/cluster-service: "true"}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata:
  labels: {addonmanager.kubernetes.io/mode: Reconcile, k8s-app: konnectivity-agent}
  namespace: kube-system
  name: konnectivity-agent
spec:
  selector: {matchLabels: {k8s-app: konnectivity-agent}}
  template:
    metadata: {labels: {k8s-app: konnectivity-agent}}
    spec:
      priorityClassName: system-cluster-critical
      tolerations: [{key: CriticalAddonsOnly, operator: Exists}]
      containers:
      - image: registry.example/kas-network-proxy/proxy-agent:v0.0.37
        name: konnectivity-agent
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

/// What the page has an administrator do on a control-plane host. `openssl x509 -req` makes a certificate of
/// version 1; there is no kubectl on the host, so the kubeconfig is written and not made by it.
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
- name: system:konnectivity-server
  user: {client-certificate-data: $(base64 -w0 k.crt), client-key-data: $(base64 -w0 k.key)}
contexts:
- name: system:konnectivity-server@kubernetes
  context: {cluster: kubernetes, user: "system:konnectivity-server"}
current-context: system:konnectivity-server@kubernetes
X
rm -f k.crt k.key k.csr
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
  priorityClassName: system-cluster-critical
  hostNetwork: true
  containers:
  - name: konnectivity-server-container
    image: registry.example/kas-network-proxy/proxy-server:v0.0.32
    command: [/proxy-server]
    args: [--logtostderr=true,
      # As in the egress configuration.
      --uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket,
      --cluster-cert=/etc/kubernetes/pki/apiserver.crt, --cluster-key=/etc/kubernetes/pki/apiserver.key,
      --mode=grpc, --server-port=0, --agent-port=8132, --admin-port=8133, --health-port=8134,
      --agent-namespace=kube-system, --agent-service-account=konnectivity-agent,
      --kubeconfig=/etc/kubernetes/konnectivity-server.conf,
      --authentication-audience=system:konnectivity-server]
    livenessProbe:
      httpGet: {scheme: HTTP, host: 127.0.0.1, port: 8134, path: /healthz}
      initialDelaySeconds: 30
      timeoutSeconds: 60
    ports:
    - {name: agentport, containerPort: 8132, hostPort: 8132}
    - {name: adminport, containerPort: 8133, hostPort: 8133}
    - {name: healthport, containerPort: 8134, hostPort: 8134}
    volumeMounts:
    - {name: k8s-certs, mountPath: /etc/kubernetes/pki, readOnly: true}
    - {name: kubeconfig, mountPath: /etc/kubernetes/konnectivity-server.conf, readOnly: true}
    - {name: konnectivity-uds, mountPath: /etc/kubernetes/konnectivity-server, readOnly: false}
  volumes:
  - name: k8s-certs
    hostPath: {path: /etc/kubernetes/pki}
  - name: kubeconfig
    hostPath: {path: /etc/kubernetes/konnectivity-server.conf, type: FileOrCreate}
  - name: konnectivity-uds
    hostPath: {path: /etc/kubernetes/konnectivity-server, type: DirectoryOrCreate}
X
"#;

const EGRESS: &str = "--egress-selector-config-file=/etc/kubernetes/egress-selector-configuration.yaml";

fn metrics(lab: &Lab) -> String {
    let page = ["curl", "-s", "-m", "5", "http://127.0.0.1:8134/metrics"];
    let ran = lab.minilab(&[&["exec", "control", "--"], &page[..]].concat());
    ran.stdout + &ran.stderr
}

fn agents(lab: &Lab, count: usize) {
    let line = format!("konnectivity_network_proxy_server_ready_backend_connections {count}");
    eventually(PATIENCE, "the agents join", || match metrics(lab) {
        page if page.lines().any(|own| own == line) => Ok(()),
        page => Err(page),
    });
}

#[test]
fn the_tasks_own_files_make_a_tunnel_by_either_frontend() {
    let lab = Lab::up();
    lab.run("web", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done");
    lab.apply(OBJECTS);
    lab.on("control", &["sh", "-c", CONTROL]);
    agents(&lab, 2);
    let described =
        lab.kubectl(&["describe", "pod", "-n", "kube-system", "-l", "k8s-app=konnectivity-agent"]);
    assert!(described.ok().contains("minilab's own proxy-agent"));
    lab.api_server_flags(&[EGRESS]);
    eventually(PATIENCE, "logs through the tunnel", || logs(&lab, "web"));
    assert!(!metrics(&lab).contains("server_dial_duration_seconds_count 0\n"));
    http_connect(&lab);
    assert!(lab.minilab(&["logs", "konnectivity-server"]).ok().contains("Agent connected"));
}

/// The same server and API server by the other frontend, edited in place.
fn http_connect(lab: &Lab) {
    let old = lab.pid("konnectivity-server", "control");
    let script = "cd /etc/kubernetes; sed -i 's/GRPC/HTTPConnect/' egress-selector-configuration.yaml; \
                  sed -i 's/--mode=grpc/--mode=http-connect/' manifests/konnectivity-server.yaml";
    lab.on("control", &["sh", "-c", script]);
    eventually(PATIENCE, "the server turns", || match lab.pid("konnectivity-server", "control") {
        now if now != old => Ok(()),
        _ => Err("it has not".to_owned()),
    });
    agents(lab, 2);
    lab.minilab(&["restart", "kube-apiserver"]).ok();
    eventually(PATIENCE, "logs by HTTP CONNECT", || logs(lab, "web"));
    assert_eq!(lab.kubectl(&["exec", "web", "--", "echo", "through"]).ok().trim(), "through");
    assert!(!metrics(lab).contains("server_dial_duration_seconds_count 0\n"));
}
