//! Attacks that only listen, and one that answers: what of the API server's proxied pages, and of its dials
//! altogether, crosses the wire.
//!
//! A capture that saw nothing proves nothing: before it is believed it has to see a dial of the attack's own
//! that crosses the same wire in the same direction.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::components_to_apiserver::words;
use super::role::Answer;
use super::running::Running;
use super::scene::{Account, Scene};
use super::{AttackError, Evidence, Finding, Wishes, answered};
use crate::lab::plan::CONTROL;

/// How long a page may take to be served, and a dial to be seen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody listens there: only the dial counts.
const PROBE: u16 = 9;

/// A page is read on the wire while the API server proxies it; the same behind `https:` is forged.
pub fn transport(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let page = Page::serve(scene)?;
    let watch = Watch::start(scene)?;
    let answer = page.ask(scene);
    let seen = watch.end(scene)?;
    let read = seen.says(&scene.marker);
    let mut evidence = vec![answered("GET the pod's page through the API server, over http", &answer)];
    evidence.extend(read.iter().cloned());
    let (forged, more) = forge(scene, &page)?;
    evidence.extend(more);
    evidence.extend(seen.probe.clone());
    Ok(match (answer.found, read.is_some(), forged) {
        (true, true, true) => Finding::compromised(
            "the page was read on the wire in plain text, and behind https: it was the attacker's own; \
             no client certificate was shown when asked",
            evidence,
        ),
        (true, false, false) if seen.probe.is_some() => Finding::defeated(
            "contained: the page came and nothing of it was on the wire, where a probe was seen (in the clear \
             still: the node's own host; no certificate is checked; and whoever holds */proxy may ask)",
            evidence,
        ),
        (found, read, forged) => Finding::inconclusive(
            format!("the page came: {found}, was read: {read}, was forged: {forged}; {}", answer.line()),
            evidence,
        ),
    })
}

/// The same page asked for with `https:`, with the attacker in the pod's place on the wire.
fn forge(scene: &mut Scene, page: &Page) -> Result<(bool, Vec<Evidence>), AttackError> {
    let forged = format!("forged page: {}", scene.marker);
    let victim = format!("{}:8443", page.address);
    let attacker =
        scene.start("wire", words(&["attacker", "fake-kubelet", &victim, "--log", &forged]), Vec::new())?;
    if attacker.event("ready").is_none() {
        return Ok((false, Vec::new()));
    }
    let path = format!("/api/v1/namespaces/{}/pods/https:{}:8443/proxy/", page.namespace, page.name);
    let answer = scene.api_get(&path);
    let events = attacker.finish();
    let handshake = events.iter().find(|event| event["event"] == "handshake");
    let mut evidence = vec![answered("GET the same with https: in front of the pod's name", &answer)];
    evidence.extend(handshake.map(|event| Evidence {
        kind: "packet",
        what: "on wire: a client certificate was asked for; shown".into(),
        sample: event["client"].as_str().unwrap_or("none").to_owned(),
    }));
    let believed = answer.found && handshake.is_some_and(|event| event["client"].is_null());
    Ok((believed, evidence))
}

/// Counts what control dials at the node site while logs and the proxy are used.
pub fn tunnel(scene: &mut Scene, _: &Wishes) -> Result<Finding, AttackError> {
    let page = Page::serve(scene)?;
    let watch = Watch::start(scene)?;
    let proxied = page.ask(scene);
    let logs = scene.api_get(&format!("/api/v1/namespaces/{}/pods/{}/log", page.namespace, page.name));
    let seen = watch.end(scene)?;
    let mut evidence = vec![
        answered("GET the pod's page through the API server", &proxied),
        answered("GET the pod's log", &logs),
    ];
    let dials = seen.dials();
    evidence.extend(dials.iter().take(6).map(|line| Evidence {
        kind: "packet",
        what: "on wire: a SYN from control to the node site".into(),
        sample: line.clone(),
    }));
    evidence.extend(seen.probe.clone());
    let works = proxied.found && logs.status == Some(200);
    Ok(match (works, dials.len()) {
        (_, count) if count > 0 => Finding::compromised(
            format!("{count} dials from the control plane to the node site crossed the wire"),
            evidence,
        ),
        (true, 0) if seen.probe.is_some() => Finding::defeated(
            "not one dial from control to the nodes, while logs and proxy work and a probe was seen",
            evidence,
        ),
        _ => Finding::inconclusive(
            format!("no dial was seen; page: {}; log: {}", proxied.line(), logs.line()),
            evidence,
        ),
    })
}

/// A pod that serves the marker.
struct Page {
    namespace: String,
    name: String,
    address: String,
}

impl Page {
    fn serve(scene: &mut Scene) -> Result<Page, AttackError> {
        let node = scene.node()?.name;
        let command = words(&["attacker", "page", "--port", "8080", &scene.marker.clone()]);
        let pod = scene.pod(Some(&node), Account::Nobody, &command)?;
        let status = pod.status.unwrap_or_default();
        Ok(Page {
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
            address: status.pod_ip.ok_or_else(|| AttackError::Scene("the pod has no address".into()))?,
        })
    }

    /// Through the API server, once the pod serves.
    fn ask(&self, scene: &Scene) -> Answer {
        let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/", self.namespace, self.name);
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = scene.api_get(&path);
            if answer.found || Instant::now() >= until {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A capture that runs.
struct Watch {
    running: Running,
}

/// What it saw, and whether it could see at all.
struct Seen {
    events: Vec<Value>,
    probe: Option<Evidence>,
}

impl Watch {
    fn start(scene: &Scene) -> Result<Watch, AttackError> {
        let running = scene.start("wire", words(&["attacker", "capture"]), Vec::new())?;
        match running.event("ready") {
            Some(_) => Ok(Watch { running }),
            None => Err(AttackError::Scene("the capture on wire did not start".into())),
        }
    }

    /// Dials once itself, across the same wire, and ends.
    fn end(self, scene: &Scene) -> Result<Seen, AttackError> {
        let target = format!("{}:{PROBE}", scene.node()?.address);
        let probes = |event: &&Value| event["event"] == "dial" && event["to"] == target.as_str();
        let words = words(&["attacker", "http", &format!("http://{target}/")]);
        let probing = scene.start("control", words, Vec::new())?;
        // Refused or dropped: that it was sent is enough. What came before it has been told before it.
        let (mut events, until) = (Vec::new(), Instant::now() + PATIENCE);
        while !events.iter().any(|event| probes(&event)) {
            let Some(event) = self.running.next_event(until) else { break };
            events.push(event);
        }
        drop(probing);
        events.extend(self.running.finish());
        let dialled = events.iter().find(probes);
        let probe = dialled.map(|event| Evidence {
            kind: "packet",
            what: "on wire: the capture sees its own probe from control".into(),
            sample: format!("{} > {target} SYN", event["from"].as_str().unwrap_or_default()),
        });
        Ok(Seen { events, probe })
    }
}

impl Seen {
    /// Plain text with these words in it.
    fn says(&self, words: &str) -> Option<Evidence> {
        let text = |event: &Value| event["what"].as_str().unwrap_or_default().to_owned();
        let found =
            self.events.iter().find(|event| event["event"] == "says" && text(event).contains(words))?;
        let end = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        let what = format!("on wire, in plain text: {} > {}", end("from"), end("to"));
        Some(Evidence { kind: "packet", what, sample: text(found) })
    }

    /// What control dialled beyond its own site, but for the probe.
    fn dials(&self) -> Vec<String> {
        let dials = self.events.iter().filter(|event| event["event"] == "dial");
        let ends = dials.filter_map(|event| {
            let end = |name: &str| event[name].as_str()?.parse::<SocketAddrV4>().ok();
            Some((end("from")?, end("to")?))
        });
        let away = |(from, to): &(SocketAddrV4, SocketAddrV4)| {
            *from.ip() == CONTROL && to.ip().octets()[..3] != CONTROL.octets()[..3] && to.port() != PROBE
        };
        ends.filter(away).map(|(from, to)| format!("{from} > {to}")).collect()
    }
}
