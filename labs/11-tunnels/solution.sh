#!/usr/bin/env bash
# Tunnels: take an sshd's place, then let the nodes dial out.
set -euo pipefail

exploit() {
  # Once the tunnel is turned around nothing dials an sshd: what was earned stays earned.
  minilab exec control -- test -e /etc/kubernetes/manifests/konnectivity-server.yaml && return 0
  minilab harden apiserver-egress.tunnel --with ssh > /dev/null
  minilab attack apiserver-egress.ssh-host-key > /dev/null
  minilab soften apiserver-egress.tunnel > /dev/null
}

explain() {
  minilab lab answer order "$(kubectl logs web --tail=1 | grep -o '[0-9][0-9]*')"
  minilab lab answer dialler "the agent on the node"
  minilab lab answer port 8132
  minilab lab answer inside "it can break them and not read or change them"
}

harden() { minilab harden apiserver-egress.tunnel apiserver-egress.agent-authentication; }

# What an administrator writes is what `minilab harden --show` prints: two files, one flag, one DaemonSet.
by_hand() { harden; }

for part in "${@:-exploit explain harden}"; do for one in $part; do "$one"; done; done
