#!/usr/bin/env bash
# Tour: kubectl shows a line of ours, then the path is hardened.
set -euo pipefail

exploit() {
  minilab attack apiserver-to-kubelet.ca --say "nothing to see here" -- kubectl logs web --tail=1
}

explain() {
  minilab lab answer order "$(kubectl logs web --tail=1 | grep -o '[0-9]*')"
  minilab lab answer port 10250
  minilab lab answer why the API server did not look at whose certificate it was
}

harden() {
  minilab harden apiserver-to-kubelet
}

requests() {
  kubectl get csr -o jsonpath="{range .items[?(@.spec.signerName=='kubernetes.io/kubelet-serving')]}{.metadata.name} {.spec.username}{'\n'}{end}" |
    sed -n "s/ system:node:$1$//p"
}

by_hand() {
  # The kubelets ask for certificates that the cluster signs.
  for node in node-1 node-2; do
    minilab exec "$node" -- sed -i 's/^serverTLSBootstrap: .*//; $ a serverTLSBootstrap: true' /var/lib/kubelet/config.yaml
    minilab restart "kubelet@$node"
  done
  # Nobody approves these by itself: look at each request, then approve it.
  for node in node-1 node-2; do
    until requests "$node" | grep -q .; do sleep 0.2; done
    for csr in $(requests "$node"); do kubectl certificate approve "$csr"; done
  done
  # The API server looks at what they show.
  minilab exec control -- sh -c '
    cd /etc/kubernetes/manifests
    grep -q kubelet-certificate-authority kube-apiserver.yaml ||
      sed -i "s|^    - kube-apiserver$|&\n    - --kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt|" kube-apiserver.yaml'
  for try in $(seq 100); do
    kubectl logs web --tail=1 2>/dev/null && break
    sleep 0.3
  done
}

for part in "${@:-exploit explain harden}"; do
  for one in $part; do "$one"; done
done
