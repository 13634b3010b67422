//! `just bench`: medians of start-up, memory, pods and the API, each beside what the machine gives at
//! best in the same run. Nothing here passes or fails; the numbers are for people.
//!
//! `just bench --rounds 20` repeats more; `just bench api` runs one part (`up`, `memory`, `pods`, `api`,
//! `streams`, `services`, `network`, `tunnel`).

mod api;
mod figures;
mod lab;
mod network;
#[allow(dead_code, reason = "the bench is one kind of client and sends few of the packets")]
#[path = "../../src/tunnel/konnectivity/packet.rs"]
mod packet;
mod pods;
#[allow(dead_code, unused_imports, reason = "the bench is one end of the codec and runs none of its tests")]
#[path = "../../src/stream/mod.rs"]
mod stream;
mod streams;
mod tunnel;
mod up;

use figures::Report;

fn main() -> anyhow::Result<()> {
    let mut rounds = 10;
    let mut parts: Vec<String> = Vec::new();
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = words.next().unwrap_or_default().parse()?,
            part => parts.push(part.to_owned()),
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| word == part);
    let mut report = Report::default();
    if wanted("up") {
        up::measure(rounds, &mut report)?;
    }
    if ["memory", "pods", "api", "streams", "services", "network", "tunnel"].into_iter().any(wanted) {
        let lab = lab::Lab::up()?;
        if wanted("memory") {
            up::memory(&lab, &mut report)?;
        }
        if wanted("pods") {
            pods::measure(&lab, rounds, &mut report)?;
        }
        if wanted("api") {
            api::measure(&lab, rounds, &mut report)?;
        }
        if wanted("streams") {
            streams::measure(&lab, rounds, &mut report)?;
        }
        if wanted("services") {
            network::programming(&lab, rounds, &mut report)?;
        }
        if wanted("network") {
            network::traffic(&lab, &mut report)?;
        }
        if wanted("tunnel") {
            tunnel::measure(&lab, rounds, &mut report)?;
        }
    }
    report.print();
    Ok(())
}
