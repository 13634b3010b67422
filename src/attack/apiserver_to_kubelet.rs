//! Attacks on `apiserver-to-kubelet`: who it is that the API server takes for a kubelet.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::components_to_apiserver::words;
use super::question::Question;
use super::role::Answer;
use super::running::{self, Running};
use super::scene::{Account, Scene};
use super::{AttackError, Evidence, Finding, Wishes, answered};
use crate::lab::plan::{HostKind, Plan, endpoint};
use crate::lab::state::LabDir;

/// How long somebody who has dialled may take to ask or to refuse.
const SETTLING: Duration = Duration::from_secs(5);

/// A fake kubelet on the wire answers `kubectl logs`.
pub fn ca(scene: &mut Scene, wishes: &Wishes) -> Result<Finding, AttackError> {
    let node = scene.node()?;
    let real = "the log as the container wrote it";
    let script = format!("echo '{real}'; exec sleep 600");
    let pod = scene.pod(Some(&node.name), Account::Nobody, &words(&["sh", "-c", &script]))?;
    let (namespace, name) =
        (pod.metadata.namespace.unwrap_or_default(), pod.metadata.name.unwrap_or_default());
    let forged = match &wishes.say {
        Some(text) => format!("{text} ({})", scene.marker),
        None => format!("forged on the wire: {}", scene.marker),
    };
    let victim = format!("{}:10250", node.address);
    let attacker =
        scene.start("wire", words(&["attacker", "fake-kubelet", &victim, "--log", &forged]), Vec::new())?;
    if attacker.event("ready").is_none() {
        return Ok(Finding::inconclusive("the fake kubelet did not start", Vec::new()));
    }
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log");
    let answer = scene.api_get(&path);
    let mut events = Vec::new();
    settle(&attacker, &mut events);
    if events.is_empty() && answer.body.contains(real) {
        return no_way(
            scene,
            attacker,
            &victim,
            answered(&format!("kubectl -n {namespace} logs {name}"), &answer),
        );
    }
    let verbs = streams(scene, &namespace, &name)?;
    events.extend(attacker.finish());
    let mut evidence = vec![answered(&format!("kubectl -n {namespace} logs {name}"), &answer)];
    evidence.extend(verbs.iter().map(|(verb, answer)| answered(verb, answer)));
    evidence.extend(events.iter().map(seen));
    let refused = |answer: &Answer| (answer.body.clone() + &answer.error).contains("x509: ");
    let typed = |of: &str| {
        let keys = events.iter().filter(|event| event["event"] == "keystrokes" && event["of"] == of);
        keys.into_iter().any(|event| event["text"].as_str().is_some_and(|text| text.contains(&scene.marker)))
    };
    let all_forged =
        verbs.iter().all(|(_, answer)| answer.found) && ["exec", "attach"].into_iter().all(typed);
    let all_refused = verbs.iter().all(|(_, answer)| refused(answer));
    let dialled = events.iter().any(|event| event["event"] == "dialled");
    let asked = events.iter().any(|event| event["event"] == "request");
    let x509 = answer.body.contains("x509: ");
    Ok(match () {
        () if answer.found && asked && all_forged => Finding::compromised(
            "kubectl logs printed what the attacker on the wire wrote; what was typed into exec and attach was \
             noted, and port-forward was fed",
            evidence,
        ),
        () if dialled && !asked && x509 && all_refused => {
            let why = answer.body.lines().next().unwrap_or_default();
            Finding::defeated(format!("the API server hung up on the fake kubelet: {why}"), evidence)
        }
        () => {
            let what = format!("the fake kubelet was dialled: {dialled}, asked: {asked}; {}", answer.line());
            Finding::inconclusive(what, evidence)
        }
    })
}

/// The log came and nobody dialled: there is no such way any more, if the fake kubelet is one that can be dialled.
fn no_way(scene: &Scene, attacker: Running, victim: &str, log: Evidence) -> Result<Finding, AttackError> {
    let probe = words(&["timeout", "4", "attacker", "http", &format!("https://{victim}/healthz")]);
    scene.output("control", probe, Vec::new())?;
    let events = attacker.finish();
    let dialled = events.iter().find(|event| event["event"] == "dialled");
    let mut evidence = vec![log];
    evidence.extend(dialled.map(|event| Evidence {
        kind: "packet",
        what: "on wire: a probe from control, sent by the attack itself, reached the fake kubelet".into(),
        sample: event["from"].as_str().unwrap_or_default().to_owned(),
    }));
    Ok(match dialled {
        Some(_) => Finding::defeated(
            "the API server's dial went another way: the real log came, and only the attack's own probe came by",
            evidence,
        ),
        None => Finding::inconclusive("the log came another way, and no probe came by either", evidence),
    })
}

/// A fake kubelet in front of every real one, for whatever the learner does meanwhile.
pub fn stand(lab: &LabDir, wishes: &Wishes) -> Result<Vec<Running>, AttackError> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
    let says = wishes.say.clone().unwrap_or_else(|| "forged on the wire".into());
    let nodes = plan.hosts.iter().filter(|host| host.kind == HostKind::Node);
    let mut attackers = Vec::new();
    for address in nodes.filter_map(|host| host.addresses.first()) {
        let victim = format!("{}:10250", address.addr());
        let words = words(&["attacker", "fake-kubelet", &victim, "--log", &says]);
        let attacker = running::start(lab, "wire", words, Vec::new())?;
        if attacker.event("ready").is_none() {
            return Err(AttackError::Scene("the fake kubelet did not start".into()));
        }
        attackers.push(attacker);
    }
    Ok(attackers)
}

/// What came by while they stood there.
pub fn seen_standing(attackers: Vec<Running>) -> Finding {
    let mut events = Vec::new();
    for attacker in attackers {
        settle(&attacker, &mut events);
        events.extend(attacker.finish());
    }
    let evidence = events.iter().map(seen).collect();
    let any = |name: &str| events.iter().any(|event| event["event"] == name);
    match (any("request"), any("refused"), any("dialled")) {
        (true, ..) => {
            Finding::compromised("the API server asked the fake kubelet, and believed it", evidence)
        }
        (false, true, _) => {
            Finding::defeated("the API server looked at the certificate and hung up", evidence)
        }
        (false, false, true) => Finding::inconclusive("somebody dialled and asked nothing", evidence),
        _ => Finding::inconclusive("nobody came by: the command took another way, or none", evidence),
    }
}

/// Hears a fake kubelet out: who was dialled and has neither been asked nor refused yet will be in a moment,
/// for a client of TLS 1.3 refuses after the server thinks the handshake is over.
fn settle(attacker: &Running, events: &mut Vec<Value>) {
    let until = Instant::now() + SETTLING;
    let mut open = 0_i32;
    loop {
        let patience = if open > 0 { until } else { until.min(Instant::now() + Duration::from_millis(50)) };
        let Some(event) = attacker.next_event(patience) else { return };
        match event["event"].as_str() {
            Some("dialled") => open += 1,
            Some("request" | "refused") => open -= 1,
            _ => {}
        }
        events.push(event);
    }
}

/// The other verbs, as somebody with the role `edit` uses them: each question typed and answered.
fn streams(scene: &Scene, namespace: &str, name: &str) -> Result<Vec<(&'static str, Answer)>, AttackError> {
    scene.grant_edit(namespace)?;
    let token = scene.token(namespace, "default", None)?;
    let pod = format!("{}/api/v1/namespaces/{namespace}/pods/{name}", endpoint());
    let keys = format!("password {}\nexit\n", scene.marker);
    let mut answers = Vec::new();
    for (verb, way, typed) in [
        ("kubectl exec -i", "exec?command=sh&stdin=true&stdout=true&container=toolbox", keys.as_str()),
        ("kubectl attach -i", "attach?stdin=true&stdout=true&container=toolbox", keys.as_str()),
        ("kubectl port-forward", "portforward?ports=8080", "GET / HTTP/1.0\r\n\r\n"),
    ] {
        let question = Question::get(format!("{pod}/{way}")).typing(typed).find(&scene.marker);
        answers.push((verb, scene.ask_from_host("control", Some(&token), &question)?));
    }
    Ok(answers)
}

/// What the attacker on the wire saw.
fn seen(event: &Value) -> Evidence {
    let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let (what, sample) = match event["event"].as_str().unwrap_or_default() {
        "dialled" => ("a connection came in", word("from")),
        "handshake" => ("a TLS handshake ended, the client showed", word("client")),
        "refused" => ("the client refused", word("why")),
        "request" => ("an HTTP request came in", format!("{} {}", word("method"), word("path"))),
        "keystrokes" => ("somebody typed", format!("{}: {}", word("of"), word("text"))),
        "forwarded" => ("somebody used a forwarded port", word("text")),
        other => (other, event.to_string()),
    };
    Evidence { kind: "packet", what: format!("on wire: {what}"), sample }
}
