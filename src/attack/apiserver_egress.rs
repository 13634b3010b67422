//! Attacks on `apiserver-egress`: who it is that the API server takes for a tunnel's far end.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::components_to_apiserver::words;
use super::question::Question;
use super::role::Answer;
use super::running::Running;
use super::scene::{Account, Node, Scene};
use super::{AttackError, Evidence, Finding, Wishes, answered};

/// How long a broken tunnel may take to be opened again, through the attacker.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where agents come.
const SERVER: &str = "198.51.100.2:8132";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// So many logs read without a dial mean that nothing of this road passes the wire.
const ENOUGH: usize = 3;

/// A pod on node-1 that writes one line, and where its log is asked for.
struct Talker {
    path: String,
    shown: String,
}

fn talker(scene: &mut Scene, node: &Node) -> Result<Talker, AttackError> {
    let script = "echo 'the log as the container wrote it'; exec sleep 600";
    let pod = scene.pod(Some(&node.name), Account::Nobody, &words(&["sh", "-c", script]))?;
    let meta = pod.metadata;
    let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
    Ok(Talker {
        path: format!("/api/v1/namespaces/{namespace}/pods/{name}/log"),
        shown: format!("kubectl -n {namespace} logs {name}"),
    })
}

/// What forged logs say.
fn forgery(scene: &Scene, wishes: &Wishes) -> String {
    match &wishes.say {
        Some(text) => format!("{text} ({})", scene.marker),
        None => format!("forged in a tunnel: {}", scene.marker),
    }
}

/// What the attacker saw, and what `kubectl logs` said last.
struct Seen {
    events: Vec<Value>,
    answer: Answer,
}

impl Seen {
    fn any(&self, name: &str) -> bool {
        self.events.iter().any(|event| event["event"] == name)
    }
}

/// A fake sshd takes node-1's place on the wire.
pub fn ssh_host_key(scene: &mut Scene, wishes: &Wishes) -> Result<Finding, AttackError> {
    let node = scene.node()?;
    let talker = talker(scene, &node)?;
    let victim = format!("{}:22", node.address);
    let since = scene.log_length("kube-apiserver", "control");
    let log = forgery(scene, wishes);
    let attacker =
        scene.start("wire", words(&["attacker", "fake-sshd", &victim, "--log", &log]), Vec::new())?;
    if attacker.event("ready").is_none() {
        return Ok(Finding::inconclusive("the fake sshd did not start", Vec::new()));
    }
    let mut seen = provoke(scene, &attacker, &talker);
    let dialled = seen.any("dialled");
    let probed = match dialled {
        true => false,
        // Nothing came; whether anything could have is shown by a dial of the attack's own.
        false => {
            scene.ask_from_host("control", None, &Question::get(format!("http://{victim}/")))?;
            seen.events.extend(attacker.next_event(Instant::now() + PATIENCE));
            seen.any("dialled")
        }
    };
    seen.events.extend(attacker.finish());
    let mut evidence = vec![answered(&talker.shown, &seen.answer)];
    evidence.extend(seen.events.iter().map(on_wire));
    let refusal = scene.log_line_since("kube-apiserver", "control", since, "knownhosts: ");
    evidence.extend(refusal.iter().map(|line| Evidence {
        kind: "log",
        what: "kube-apiserver@control".into(),
        sample: line.clone(),
    }));
    Ok(match () {
        () if seen.any("login") && seen.any("asked to dial") => {
            let gained = match seen.answer.found {
                true => "kubectl logs printed what the attacker wrote",
                false => {
                    "it saw the dial and got only ciphertext, since the kubelet's certificate is looked at"
                }
            };
            Finding::compromised(format!("the API server logged in to the fake sshd: {gained}"), evidence)
        }
        () if dialled && !seen.any("login") && refusal.is_some() => {
            Finding::defeated("the API server left at the key exchange: it knows another key", evidence)
        }
        () if probed && seen.answer.status == Some(200) => Finding::defeated(
            "the API server dials no sshd: logs came by another road, while a probe on the wire was caught",
            evidence,
        ),
        () => {
            let what =
                format!("dialled: {dialled}, logged in: {}; {}", seen.any("login"), seen.answer.line());
            Finding::inconclusive(what, evidence)
        }
    })
}

/// An agent nobody deployed says it is node-1's.
pub fn agent_authentication(scene: &mut Scene, wishes: &Wishes) -> Result<Finding, AttackError> {
    let node = scene.node()?;
    let talker = talker(scene, &node)?;
    let (identifiers, log) = (format!("ipv4={}", node.address), forgery(scene, wishes));
    let rogue = ["attacker", "rogue-agent", SERVER, "--identifiers", &identifiers, "--log", &log];
    let attacker = scene.start("wire", words(&rogue), Vec::new())?;
    if attacker.event("ready").is_none() {
        return Ok(Finding::inconclusive("the rogue agent did not start", Vec::new()));
    }
    let mut seen = provoke(scene, &attacker, &talker);
    seen.events.extend(attacker.finish());
    let refusal = seen.events.iter().find(|event| event["event"] == "turned away");
    let refusal = refusal.and_then(|event| event["why"].as_str()).map(str::to_owned);
    let mut evidence = vec![answered(&talker.shown, &seen.answer)];
    let mut told = Vec::new();
    for event in seen.events.iter().map(on_wire) {
        // It is turned away again and again.
        if !told.contains(&event) {
            told.push(event);
        }
    }
    evidence.extend(told);
    Ok(match (refusal, seen.any("joined")) {
        (_, true) if seen.any("asked to dial") => {
            let gained = match seen.answer.found {
                true => "kubectl logs printed what the attacker wrote",
                false => "it was sent the API server's dial and got only ciphertext",
            };
            Finding::compromised(format!("the server took the rogue for node-1's agent: {gained}"), evidence)
        }
        (Some(why), false) => Finding::defeated(format!("the server turned the rogue away: {why}"), evidence),
        // A dead server turns nobody away; that none is needed is shown by the log that came without one.
        (None, false) if seen.any("no answer") && seen.answer.status == Some(200) => Finding::defeated(
            "no server takes agents in: the log came by another road, and nobody listens where the rogue dialled",
            evidence,
        ),
        (_, joined) => {
            let what = format!("it joined: {joined}, and was asked to dial nothing; {}", seen.answer.line());
            Finding::inconclusive(what, evidence)
        }
    })
}

/// Asks for logs until it is clear what becomes of the tunnel.
fn provoke(scene: &Scene, attacker: &Running, talker: &Talker) -> Seen {
    let until = Instant::now() + PATIENCE;
    let mut seen = Seen { events: Vec::new(), answer: Answer::default() };
    let mut quiet = 0;
    while Instant::now() < until && quiet < ENOUGH {
        seen.answer = scene.api_get(&talker.path);
        while let Some(event) = attacker.next_event(Instant::now() + LOOK) {
            seen.events.push(event);
        }
        let decided = seen.answer.found || seen.answer.body.contains("x509: ");
        if seen.any("asked to dial") && decided || seen.any("left") || seen.any("turned away") {
            break;
        }
        let at_work = seen.any("dialled") || seen.any("joined");
        quiet = if at_work || seen.answer.status != Some(200) { 0 } else { quiet + 1 };
    }
    seen
}

/// What the attacker on the wire saw.
fn on_wire(event: &Value) -> Evidence {
    let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let (what, sample) = match event["event"].as_str().unwrap_or_default() {
        "dialled" => ("a connection came in", word("from")),
        "login" => ("a login by public key", format!("{} {}", word("user"), word("key"))),
        "asked to dial" => ("asked to dial", word("to")),
        "left" => ("the client left", word("why")),
        "joined" => ("the server took it in as", word("as")),
        "turned away" => ("the server turned it away", word("why")),
        "no answer" => ("nobody answered it", word("why")),
        "handshake" => ("a TLS handshake ended, the client showed", word("client")),
        "refused" => ("the client refused the certificate", word("why")),
        "request" => ("an HTTP request came in", format!("{} {}", word("method"), word("path"))),
        other => (other, event.to_string()),
    };
    Evidence { kind: "packet", what: format!("on wire: {what}"), sample }
}
