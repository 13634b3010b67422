//! Nodes that join a running lab: with the CA pinned, loudly without, and refused when they are lied to.

use std::time::Duration;

use crate::kit::{Lab, eventually};

#[test]
fn a_node_joins_live_with_the_ca_pinned_runs_pods_and_leaves() {
    let lab = Lab::up();
    let added = lab.minilab(&["node", "add"]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    let nodes = lab.kubectl(&["get", "nodes"]).ok();
    assert!(nodes.lines().any(|line| line.starts_with("node-3") && line.contains(" Ready ")), "{nodes}");
    let log = lab.minilab(&["logs", "kubeadm@node-3"]).ok();
    assert!(log.contains("TLS certificate validates against pinned roots"), "{log}");
    let csr = lab.kubectl(&["get", "csr"]).ok();
    assert!(
        csr.lines().any(|line| line.contains("system:bootstrap:") && line.contains("Approved,Issued")),
        "{csr}"
    );
    lab.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: far}
spec: {nodeName: node-3, containers: [{name: c, image: minilab/toolbox, command: [sh, -c, 'echo here; sleep infinity']}]}
",
    );
    lab.wait_ready("far");
    assert_eq!(lab.kubectl(&["logs", "far"]).ok(), "here\n");
    // It is a node like others: it comes back with the lab.
    lab.minilab(&["down"]).ok();
    lab.minilab(&["up"]).ok();
    assert_eq!(lab.kubectl(&["get", "nodes", "-o", "name"]).ok().lines().count(), 3);
    let removed = lab.minilab(&["node", "remove", "node-3"]);
    assert!(
        removed.code == 0 && removed.stderr.contains("nobody revokes its client certificate"),
        "{}",
        removed.stderr
    );
    assert_eq!(lab.kubectl(&["get", "nodes", "-o", "name"]).ok(), "node/node-1\nnode/node-2\n");
    eventually(Duration::from_secs(60), "its pod is forgotten", || {
        let pods = lab.kubectl(&["get", "pods", "-o", "name"]).ok();
        if pods.contains("far") { Err(pods) } else { Ok(()) }
    });
    let status = lab.status();
    assert!(status["roles"].as_array().unwrap().iter().all(|role| role["host"] != "node-3"), "{status}");
    assert_eq!(lab.minilab(&["node", "remove", "node-9"]).code, 2);
}

#[test]
fn without_a_pin_a_join_is_loud_and_with_a_wrong_one_it_is_refused() {
    let lab = Lab::up();
    let loud = lab.minilab(&["node", "add", "--discovery-token-unsafe-skip-ca-verification"]);
    assert!(
        loud.code == 0 && loud.stderr.contains("joins without knowing the cluster's CA"),
        "{}",
        loud.stderr
    );
    assert!(lab.minilab(&["logs", "kubeadm@node-3"]).ok().contains("WARNING: no CA pinned"));
    // The same join by hand, told another digest.
    let script = "sed 's/sha256:.*/sha256:0000/' /etc/kubernetes/kubeadm-join.yaml > /tmp/wrong.yaml
rm -f /etc/kubernetes/kubelet.conf
kubeadm join --config=/tmp/wrong.yaml";
    let refused = lab.minilab(&["exec", "node-1", "--", "sh", "-c", script]);
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("none of the public keys") && refused.stderr.contains("are pinned"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_pasted_error_is_explained() {
    let lab = Lab::new();
    let text = "Error from server (Forbidden): nodes \"node-2\" is forbidden: node \"node-1\" is not allowed to modify node \"node-2\"";
    let said = lab.minilab(&["explain", text]).ok();
    assert!(said.starts_with("node-to-apiserver.restriction: NodeRestriction refused a kubelet"), "{said}");
    assert_eq!(lab.minilab(&["explain", "no such thing at all"]).code, 2);
}

/// What a learner sees when a step of TLS bootstrapping is missing, one after the other.
#[test]
fn each_missing_step_of_a_join_has_its_own_words() {
    let lab = Lab::up();
    lab.kubectl(&["delete", "clusterrolebinding", "kubeadm:node-autoapprove-bootstrap"]).ok();
    let waiting = lab.minilab(&["node", "add", "--timeout", "3"]);
    assert_eq!(waiting.code, 4, "{}{}", waiting.stdout, waiting.stderr);
    let pending = || {
        let requests = lab.kubectl(&["get", "csr", "--no-headers"]).ok();
        let line = requests.lines().find(|line| line.ends_with("Pending")).map(str::to_owned);
        line.and_then(|line| line.split(' ').next().map(str::to_owned))
    };
    let name =
        eventually(Duration::from_secs(10), "a request waits", || pending().ok_or_else(|| "none".into()));
    lab.kubectl(&["delete", "clusterrolebinding", "kubeadm:kubelet-bootstrap"]).ok();
    lab.kubectl(&["certificate", "deny", &name]).ok();
    let says = |text: &str| {
        eventually(Duration::from_secs(20), text, || {
            let log = lab.minilab(&["logs", "kubelet@node-3"]).stdout;
            if log.contains(text) { Ok(()) } else { Err(log[log.len().saturating_sub(1500)..].to_owned()) }
        });
    };
    says(
        "certificate signing request is denied, reason: KubectlDeny, message: This CSR was denied by kubectl certificate deny.",
    );
    says("cannot create certificate signing request");
    says("is forbidden: User \\\"system:bootstrap:");
    let token = lab
        .kubectl(&[
            "-n",
            "kube-system",
            "get",
            "secrets",
            "--field-selector=type=bootstrap.kubernetes.io/token",
            "-o",
            "name",
        ])
        .ok();
    lab.kubectl(&["-n", "kube-system", "delete", token.trim()]).ok();
    says("cannot create certificate signing request\" error=\"Unauthorized\"");
}
