#!/usr/bin/env bash
# Man in the middle of logs: forge a log, then let the API server check who answers.
set -euo pipefail

exploit() { minilab attack apiserver-to-kubelet.ca --say "nothing to see here" > /dev/null; }

explain() {
  minilab lab answer order "$(kubectl logs web --tail=1 | grep -o '[0-9][0-9]*')"
  minilab lab answer client kube-apiserver-kubelet-client
  minilab lab answer pending "internal error"
  minilab lab answer replay "he has the certificate but not its private key"
}

harden() { minilab harden apiserver-to-kubelet; }

by_hand() {
  local node csr
  for node in node-1 node-2; do
    minilab exec "$node" -- sh -c '
      cd /var/lib/kubelet
      grep -q "^serverTLSBootstrap: true" config.yaml || echo "serverTLSBootstrap: true" >> config.yaml'
    minilab restart "kubelet@$node"
  done
  # An approver compares: who asks, for which addresses. Here the addresses are the ones the lab was built with.
  for node in node-1:192.0.2.11 node-2:192.0.2.12; do
    until kubectl get csr -o 'jsonpath={range .items[?(@.spec.signerName=="kubernetes.io/kubelet-serving")]}{.spec.username}{"\n"}{end}' |
      grep -q "^system:node:${node%:*}$"; do sleep 0.2; done
    for csr in $(kubectl get csr -o 'jsonpath={range .items[?(@.spec.signerName=="kubernetes.io/kubelet-serving")]}{.metadata.name}={.spec.username}{"\n"}{end}' |
      sed -n "s/=system:node:${node%:*}$//p"); do
      kubectl get csr "$csr" -o 'jsonpath={.spec.request}' | base64 -d | openssl req -noout -text |
        grep -q "IP Address:${node#*:}$" && kubectl certificate approve "$csr"
    done
  done
  minilab exec control -- sh -c '
    cd /etc/kubernetes/manifests
    grep -q kubelet-certificate-authority kube-apiserver.yaml ||
      sed -i "/--kubelet-client-certificate=/i\    - --kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt" kube-apiserver.yaml'
  until minilab exec control -- ps -C kube-apiserver -o args= | grep -q kubelet-certificate-authority &&
    kubectl logs web --tail=1 | grep -q order; do sleep 0.5; done
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
