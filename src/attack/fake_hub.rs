//! Attacks by a fake API server on the wire: on the nodes' way to it, on a pod's, and on the control plane's own.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::components_to_apiserver::words;
use super::question::Question;
use super::scene::{PHONE, SYSTEM, Scene};
use super::{AttackError, Evidence, Finding, Wishes, answered};
use crate::lab::plan::{BALANCER, CONTROL, endpoint};

/// A victim dials again when its connection is cut, at the latest with its next heartbeat.
const PATIENCE: Duration = Duration::from_secs(60);
/// Refusals that are enough to judge: one might be a coincidence.
const ENOUGH: usize = 2;

/// The kubelet of node-1 is told of a pod that the real API server never heard of; that it runs is the proof.
pub fn node_ca(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let node = scene.node()?;
    let call = format!("http://${{phone}}/{}", scene.marker);
    let pod = forged(&scene.marker, Some(&node.name), &["attacker", "http", &call]);
    let victim = Victim::role("kubelet", &node.name, node.address);
    let marker = scene.marker.clone();
    let ran = move |event: &Value| {
        event["event"] == "phoned" && event["line"].as_str().is_some_and(|line| line.contains(&marker))
    };
    let gained = "the node ran a pod that only the attacker knew of";
    judge(scene, &victim, &pod, &ran, gained).map(|(finding, _)| finding)
}

/// phone-home is answered by the attacker, behind the service's address; its token, shown to the real API server,
/// is the proof.
pub fn pod_ca(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let (name, address) = scene.phone()?;
    let victim = Victim { name: PHONE.into(), log: None, address, hub: CONTROL };
    let shows = |event: &Value| {
        let claims = event["bearer"].as_str().map(claims).unwrap_or_default();
        claims["kubernetes.io"]["pod"]["name"] == name.as_str()
    };
    let pod = forged(&scene.marker, None, &["true"]);
    let gained = "phone-home showed its token to the attacker, who is now phone-home to the real API server";
    let (mut finding, events) = judge(scene, &victim, &pod, &shows, gained)?;
    if let Some(token) = events.iter().find(|event| shows(event)).and_then(|event| event["bearer"].as_str()) {
        let token = token.trim_start_matches("Bearer ");
        let answer = scene.ask_from_host("wire", Some(token), &who_am_i(&name))?;
        finding.evidence.push(answered("POST a SelfSubjectReview from wire with that token", &answer));
        if !answer.found {
            return Ok(Finding::inconclusive("the stolen token did not work", finding.evidence));
        }
    }
    let log = scene.api_get(&format!("/api/v1/namespaces/{SYSTEM}/pods/{name}/log?tailLines=20"));
    finding.evidence.extend(log.body.lines().find(|line| line.contains("x509: ")).map(|line| Evidence {
        kind: "log",
        what: format!("{name} says"),
        sample: line.to_owned(),
    }));
    Ok(finding)
}

/// Whom the API server takes the holder of a token for; of an account's token it says which pod it is bound to.
fn who_am_i(pod: &str) -> Question {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", endpoint());
    Question::get(url).method("POST").json("application/json", &review).find(pod)
}

/// What a token says of itself; nothing where it is none.
pub fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).unwrap_or_default();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(body).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// The scheduler is told of a pod that nobody made; that it binds it is the proof.
pub fn components_ca(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let pod = forged(&scene.marker, None, &["true"]);
    let victim = Victim::role("kube-scheduler", "control", CONTROL.to_string());
    let wanted = format!("/pods/{}/binding", scene.marker);
    let bound = move |event: &Value| {
        event["method"] == "POST" && event["path"].as_str().is_some_and(|path| path.contains(&wanted))
    };
    let gained = "the scheduler bound a pod that only the attacker knew of";
    judge(scene, &victim, &pod, &bound, gained).map(|(finding, _)| finding)
}

/// Who is lied to.
struct Victim {
    name: String,
    /// Whose log has its complaint; a pod's is read afterwards.
    log: Option<(&'static str, String)>,
    address: String,
    /// Where it thinks the API server is.
    hub: Ipv4Addr,
}

impl Victim {
    fn role(role: &'static str, host: &str, address: String) -> Victim {
        Victim { name: format!("the {role}"), log: Some((role, host.to_owned())), address, hub: BALANCER }
    }

    fn log_length(&self, scene: &Scene) -> u64 {
        self.log.as_ref().map_or(0, |(role, host)| scene.log_length(role, host))
    }

    fn complaint(&self, scene: &Scene, since: u64) -> Option<String> {
        let (role, host) = self.log.as_ref()?;
        scene.log_line_since(role, host, since, "x509: ")
    }
}

fn judge(
    scene: &mut Scene,
    victim: &Victim,
    pod: &Value,
    proof: &dyn Fn(&Value) -> bool,
    gained: &str,
) -> Result<(Finding, Vec<Value>), AttackError> {
    let hub = format!("{}:6443", victim.hub);
    let log = victim.log_length(scene);
    let command =
        words(&["attacker", "fake-hub", &hub, "--from", &victim.address, "--pod", &pod.to_string()]);
    let attacker = scene.start("wire", command, Vec::new())?;
    if attacker.event("ready").is_none() {
        let finding = Finding::inconclusive("the fake API server did not start", Vec::new());
        return Ok((finding, Vec::new()));
    }
    let until = Instant::now() + PATIENCE;
    let (mut events, mut complaint): (Vec<Value>, _) = (Vec::new(), None);
    let count = |events: &[Value], name: &str| events.iter().filter(|one| one["event"] == name).count();
    while Instant::now() < until && !events.iter().any(proof) {
        events.extend(attacker.next_event(Instant::now() + Duration::from_millis(200)));
        complaint = complaint.or_else(|| victim.complaint(scene, log));
        let heard = complaint.is_some() || victim.log.is_none();
        if count(&events, "refused") >= ENOUGH && heard && count(&events, "request") == 0 {
            break;
        }
    }
    events.extend(attacker.finish());
    let (asked, refused) = (count(&events, "request"), count(&events, "refused"));
    let mut evidence: Vec<Evidence> = events.iter().filter_map(seen).collect();
    evidence.dedup();
    evidence.truncate(12);
    evidence.extend(complaint.clone().map(|line| Evidence {
        kind: "log",
        what: format!("{} says", victim.name),
        sample: line,
    }));
    // What the attacker's own server was told is a refusal too.
    let alert = || events.iter().find_map(|one| Some(one["why"].as_str()?.to_owned()));
    let x509 = |line: String| {
        let rest = line.split("x509: ").last().and_then(|rest| rest.split('"').next());
        format!("x509: {}", rest.unwrap_or_default())
    };
    let why = match &victim.log {
        Some(_) => complaint.map(x509),
        None => alert(),
    };
    let finding = match why {
        _ if events.iter().any(proof) => Finding::compromised(gained, evidence),
        Some(why) if refused > 0 && asked == 0 => {
            Finding::defeated(format!("{} hung up: {why}; 0 HTTP requests", victim.name), evidence)
        }
        _ => Finding::inconclusive(
            format!("{asked} requests and {refused} refused handshakes, but no proof either way"),
            evidence,
        ),
    };
    Ok((finding, events))
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
