//! Attacks by a fake API server on the wire: on the nodes' way to it and on the control plane's own.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::components_to_apiserver::words;
use super::scene::Scene;
use super::{AttackError, Evidence, Finding, Wishes};
use crate::lab::plan::{BALANCER, CONTROL};

/// A victim dials again when its connection is cut, at the latest with its next heartbeat.
const PATIENCE: Duration = Duration::from_secs(60);
/// Refusals that are enough to judge: one might be a coincidence.
const ENOUGH: usize = 2;

/// The kubelet of node-1 is told of a pod that the real API server never heard of; that it runs is the proof.
pub fn node_ca(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let node = scene.node()?;
    let call = format!("http://${{phone}}/{}", scene.marker);
    let pod = forged(&scene.marker, Some(&node.name), &["attacker", "http", &call]);
    let victim = Victim { role: "kubelet", host: node.name.clone(), address: node.address };
    let marker = scene.marker.clone();
    let ran = move |event: &Value| {
        event["event"] == "phoned" && event["line"].as_str().is_some_and(|line| line.contains(&marker))
    };
    judge(scene, &victim, &pod, &ran, "the node ran a pod that only the attacker knew of")
}

/// The scheduler is told of a pod that nobody made; that it binds it is the proof.
pub fn components_ca(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let pod = forged(&scene.marker, None, &["true"]);
    let victim = Victim { role: "kube-scheduler", host: "control".into(), address: CONTROL.to_string() };
    let wanted = format!("/pods/{}/binding", scene.marker);
    let bound = move |event: &Value| {
        event["method"] == "POST" && event["path"].as_str().is_some_and(|path| path.contains(&wanted))
    };
    judge(scene, &victim, &pod, &bound, "the scheduler bound a pod that only the attacker knew of")
}

/// Who is lied to.
struct Victim {
    role: &'static str,
    host: String,
    address: String,
}

fn judge(
    scene: &mut Scene,
    victim: &Victim,
    pod: &Value,
    proof: &dyn Fn(&Value) -> bool,
    gained: &str,
) -> Result<Finding, AttackError> {
    let hub = format!("{BALANCER}:6443");
    let log = scene.log_length(victim.role, &victim.host);
    let command =
        words(&["attacker", "fake-hub", &hub, "--from", &victim.address, "--pod", &pod.to_string()]);
    let attacker = scene.start("wire", command, Vec::new())?;
    if attacker.event("ready").is_none() {
        return Ok(Finding::inconclusive("the fake API server did not start", Vec::new()));
    }
    let until = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    let mut complaint = None;
    while Instant::now() < until && !events.iter().any(proof) {
        events.extend(attacker.next_event(Instant::now() + Duration::from_millis(200)));
        complaint = complaint.or_else(|| scene.log_line_since(victim.role, &victim.host, log, "x509: "));
        let refused = events.iter().filter(|event| event["event"] == "refused").count();
        if refused >= ENOUGH && complaint.is_some() && !events.iter().any(|event| event["event"] == "request")
        {
            break;
        }
    }
    events.extend(attacker.finish());
    let asked = events.iter().filter(|event| event["event"] == "request").count();
    let refused = events.iter().filter(|event| event["event"] == "refused").count();
    let mut evidence: Vec<Evidence> = events.iter().filter_map(seen).collect();
    evidence.dedup();
    evidence.truncate(12);
    evidence.extend(complaint.clone().map(|line| Evidence {
        kind: "log",
        what: format!("{}@{} says", victim.role, victim.host),
        sample: line,
    }));
    Ok(match complaint {
        _ if events.iter().any(proof) => Finding::compromised(gained, evidence),
        Some(line) if refused > 0 && asked == 0 => {
            let why = line.split("x509: ").last().and_then(|rest| rest.split('"').next()).unwrap_or_default();
            Finding::defeated(format!("the {} hung up: x509: {why}; 0 HTTP requests", victim.role), evidence)
        }
        _ => Finding::inconclusive(
            format!("{asked} requests and {refused} refused handshakes, but no proof either way"),
            evidence,
        ),
    })
}

/// A pod as the real API server would have told of it.
fn forged(marker: &str, node: Option<&str>, command: &[&str]) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": marker, "namespace": "default", "uid": uuid::Uuid::new_v4().to_string(),
            "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "containers": [{
                "name": "forged", "image": "minilab/toolbox", "imagePullPolicy": "IfNotPresent",
                "command": command, "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File", "resources": {},
            }],
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "dnsPolicy": "Default",
            "automountServiceAccountToken": false, "enableServiceLinks": false,
            "schedulerName": "default-scheduler", "securityContext": {},
        },
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

fn seen(event: &Value) -> Option<Evidence> {
    let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let (what, sample) = match event["event"].as_str()? {
        "refused" => ("the victim refused the handshake", word("why")),
        "phoned" => ("the forged pod called home", word("line")),
        "request" => {
            let who = match (event["client"].as_str(), event["bearer"].as_str()) {
                (_, Some(bearer)) => {
                    format!(", and showed a token anybody can use: {}…", bearer.get(..20).unwrap_or(bearer))
                }
                (Some(client), None) => {
                    format!(", and showed the certificate of {client}, which cannot be passed on")
                }
                (None, None) => String::new(),
            };
            ("the victim asked", format!("{} {}{who}", word("method"), word("path")))
        }
        _ => return None,
    };
    Some(Evidence { kind: "packet", what: format!("on wire: {what}"), sample })
}
