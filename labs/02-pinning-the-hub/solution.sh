#!/usr/bin/env bash
# Pinning the hub: a false API server runs a pod on a node, until nodes look at the certificate.
set -euo pipefail

exploit() {
  minilab attack node-to-apiserver.ca
}

explain() {
  minilab lab answer address 198.51.100.1
  minilab lab answer need "the cluster's CA certificate, or its hash"
  minilab lab answer gain run a pod that the cluster never heard of
}

harden() {
  minilab harden node-to-apiserver.ca
}

by_hand() {
  for node in node-1 node-2; do
    for file in /etc/kubernetes/kubelet.conf /var/lib/kube-proxy/kubeconfig.conf; do
      minilab exec "$node" -- sed -i 's|insecure-skip-tls-verify: true|certificate-authority: /etc/kubernetes/pki/ca.crt|' "$file"
    done
    minilab restart "kubelet@$node"
    minilab restart "kube-proxy@$node"
  done
}

for part in "${@:-exploit explain harden}"; do
  for one in $part; do "$one"; done
done
