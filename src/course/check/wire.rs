//! Packets on the untrusted network while something runs: dialled or not, readable or not.
//!
//! That nothing was seen proves something only where something would have been: before "none" counts, the
//! capture has seen a connection that was made for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Seen, probe, works};
use crate::attack::{Running, watch_wire};
use crate::course::ground::Ground;
use crate::course::schema::{Count, Wire};

/// What nobody listens on, so that a connection to it is nobody's but ours.
const PROBE_PORT: u16 = 9;

pub fn wire(ground: &Ground<'_>, wanted: &Wire) -> Result<Seen, String> {
    let capture = watch_wire(ground.lab, false).map_err(|error| error.to_string())?;
    capture.event("ready").ok_or("the capture did not start")?;
    let during = match wanted.during.as_str() {
        "works" => works::all(ground),
        name => {
            let checks = &ground.chapter.exercise;
            let mut named = checks.exploit.iter().chain(&checks.harden).filter(|check| check.name == name);
            let check = named.next().ok_or_else(|| format!("there is no check {name}"))?;
            probe(ground, &check.probe)
        }
    };
    let (events, proved) = collect(ground, capture)?;
    let relevant: Vec<&Value> = events.iter().filter(|event| fits(ground, event, wanted)).collect();
    // One that was open before, as a tunnel is, counts as soon as something goes through it.
    let way =
        |event: &&&Value| event["event"] == "dial" || event["event"] == "says" && goes(ground, event, wanted);
    let ends = |event: &&Value| (event["from"].to_string(), event["to"].to_string());
    let dialled = relevant.iter().filter(way).map(ends).collect::<BTreeSet<_>>().len() as u64;
    let text = |event: &&&Value| event["protocol"] == "plain";
    let read: String = relevant.iter().filter(text).filter_map(|event| event["what"].as_str()).collect();
    let counted = match wanted.count {
        None => true,
        Some(Count::Some(_)) => dialled > 0,
        Some(Count::Exactly(0)) => dialled == 0 && proved,
        Some(Count::Exactly(number)) => dialled == number,
    };
    let reads = wanted.reads.as_ref().is_none_or(|word| read.contains(word.as_str()));
    let hides = wanted.hides.as_ref().is_none_or(|word| proved && !read.contains(word.as_str()));
    let evidence =
        format!("{dialled} connections seen, {} bytes of plain text; {}", read.len(), during.evidence);
    Ok(Seen::new(counted && reads && hides && during.holds, evidence))
}

/// Everything that was seen, and whether the capture saw the connection made to prove it.
fn collect(ground: &Ground<'_>, capture: Running) -> Result<(Vec<Value>, bool), String> {
    let node = ground.nodes().into_iter().next().ok_or("the lab has no node")?.1;
    let question = [format!("http://{node}:{PROBE_PORT}/")];
    // Refused is as good: the SYN crossed.
    let _ = ground.question("control", &question, None);
    let (mut events, until) = (Vec::new(), Instant::now() + Duration::from_secs(3));
    let ours = format!("{node}:{PROBE_PORT}");
    while let Some(event) = capture.next_event(until) {
        let proved = event["event"] == "dial" && event["to"] == ours.as_str();
        if proved {
            return Ok((events, true));
        }
        events.push(event);
    }
    Ok((events, false))
}

/// Whether an event is of the connections that are meant, in either direction.
fn fits(ground: &Ground<'_>, event: &Value, wanted: &Wire) -> bool {
    let back = |event: &Value| between(ground, event, ("to", "from"), wanted);
    goes(ground, event, wanted) || event["event"] == "says" && back(event)
}

/// Whether it goes the way that is meant.
fn goes(ground: &Ground<'_>, event: &Value, wanted: &Wire) -> bool {
    between(ground, event, ("from", "to"), wanted)
}

fn between(ground: &Ground<'_>, event: &Value, (from, to): (&str, &str), wanted: &Wire) -> bool {
    let end = |name: &str| event[name].as_str().unwrap_or_default().rsplit_once(':').unwrap_or_default();
    let ((from, _), (to, port)) = (end(from), end(to));
    let is = |address: &str, host: &Option<String>| {
        host.as_ref().is_none_or(|host| ground.addresses(host).iter().any(|one| one == address))
    };
    is(from, &wanted.from)
        && is(to, &wanted.to)
        && wanted.port.is_none_or(|wanted| port == wanted.to_string())
}
