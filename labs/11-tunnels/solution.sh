#!/usr/bin/env bash
# Tunnels: take an sshd's place, then let the nodes dial out.
set -euo pipefail

exploit() {
  # Once the tunnel is turned around nothing dials an sshd: what was earned stays earned.
  minilab exec control -- test -e /etc/kubernetes/manifests/konnectivity-server.yaml && return 0
  minilab harden apiserver-egress.tunnel --with ssh > /dev/null
  minilab attack apiserver-egress.ssh-host-key > /dev/null
  minilab soften apiserver-egress.tunnel > /dev/null
}

explain() {
  minilab lab answer order "$(kubectl logs web --tail=1 | grep -o '[0-9][0-9]*')"
  minilab lab answer dialler "the agent on the node"
  minilab lab answer port 8132
  minilab lab answer inside "it can break them and not read or change them"
}

harden() { minilab harden apiserver-egress.tunnel apiserver-egress.agent-authentication; }

by_hand() {
  # What agents are and may do, and the agents themselves.
  kubectl apply -f - <<'YAML'
apiVersion: v1
kind: ServiceAccount
metadata: {name: konnectivity-agent, namespace: kube-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: konnectivity-server, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:konnectivity-server"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: konnectivity-server, namespace: kube-system}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: konnectivity-agent, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: konnectivity-agent}}
  template:
    metadata: {labels: {k8s-app: konnectivity-agent}}
    spec:
      hostNetwork: true
      priorityClassName: system-cluster-critical
      terminationGracePeriodSeconds: 1
      serviceAccountName: konnectivity-agent
      tolerations: [{operator: Exists}]
      containers:
      - name: konnectivity-agent
        image: registry.k8s.io/kas-network-proxy/proxy-agent:v0.34.0
        command: [/proxy-agent]
        args:
        - --ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt
        - --proxy-server-host=198.51.100.2
        - --proxy-server-port=8132
        - --admin-server-port=8133
        - --health-server-port=8134
        - --sync-interval=100ms
        - --sync-interval-cap=1s
        - --service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token
        - --agent-identifiers=ipv4=$(HOST_IP)
        env: [{name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]
        volumeMounts: [{mountPath: /var/run/secrets/tokens, name: konnectivity-agent-token}]
      volumes:
      - name: konnectivity-agent-token
        projected:
          sources:
          - serviceAccountToken: {path: konnectivity-agent-token, audience: "system:konnectivity-server"}
YAML
  # The server asks the API server whose token an agent shows; for that it needs one of its own.
  local token
  token=$(kubectl -n kube-system create token konnectivity-server --duration 24h)
  minilab exec control -- sh -c 'umask 077; cat > /etc/kubernetes/konnectivity-server.conf' <<YAML
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://198.51.100.1:6443", certificate-authority: /etc/kubernetes/pki/ca.crt}}]
users: [{name: server, user: {token: "$token"}}]
contexts: [{name: lab, context: {cluster: lab, user: server}}]
current-context: lab
YAML
  minilab exec control -- sh -c 'cat > /etc/kubernetes/egress-selector-configuration.yaml' <<'YAML'
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: GRPC
    transport: {uds: {udsName: /etc/kubernetes/konnectivity-server/konnectivity-server.socket}}
YAML
  minilab exec control -- sh -c 'cat > /etc/kubernetes/manifests/konnectivity-server.yaml' <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: konnectivity-server, namespace: kube-system}
spec:
  hostNetwork: true
  containers:
  - name: konnectivity-server
    image: registry.k8s.io/kas-network-proxy/proxy-server:v0.34.0
    command:
    - /proxy-server
    - --mode=grpc
    - --uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket
    - --delete-existing-uds-file
    - --server-port=0
    - --agent-port=8132
    - --admin-port=8133
    - --health-port=8134
    - --cluster-cert=/etc/kubernetes/pki/apiserver.crt
    - --cluster-key=/etc/kubernetes/pki/apiserver.key
    - --agent-namespace=kube-system
    - --agent-service-account=konnectivity-agent
    - --kubeconfig=/etc/kubernetes/konnectivity-server.conf
    - --authentication-audience=system:konnectivity-server
    - --proxy-strategies=destHost,default
YAML
  kubectl -n kube-system rollout status daemonset konnectivity-agent --timeout=90s
  # Only now: from here on the API server dials no node.
  minilab exec control -- sh -c '
    cd /etc/kubernetes/manifests
    grep -q egress-selector kube-apiserver.yaml || sed -i \
      "/--client-ca-file=/a\    - --egress-selector-config-file=/etc/kubernetes/egress-selector-configuration.yaml" kube-apiserver.yaml'
  until minilab exec control -- ps -C kube-apiserver -o args= | grep -q egress-selector &&
    kubectl logs web --tail=1 | grep -q order; do sleep 0.5; done
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
