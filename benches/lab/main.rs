//! `just bench`: medians of start-up, memory, pods and the API, each beside what the machine gives at
//! best in the same run. Nothing here passes or fails; the numbers are for people.
//!
//! `just bench --rounds 20` repeats more; `just bench api` runs one part (`up`, `memory`, `pods`, `api`,
//! `streams`, `services`, `network`, `tunnel`, `switch`, `course`).

mod api;
mod course;
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
mod switch;
mod tunnel;
mod up;

use figures::Report;
use lab::Lab;

type Measure = fn(&Lab, usize, &mut Report) -> anyhow::Result<()>;

/// What runs on a lab, by the name it is asked for with.
const PARTS: &[(&str, Measure)] = &[
    ("memory", |lab, _, report| up::memory(lab, report)),
    ("pods", pods::measure),
    ("api", api::measure),
    ("streams", streams::measure),
    ("services", network::programming),
    ("network", |lab, _, report| network::traffic(lab, report)),
    ("tunnel", tunnel::measure),
    ("switch", switch::measure),
    ("course", course::measure),
];

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
    let (mut report, mut failed) = (Report::default(), Vec::new());
    if wanted("up") {
        up::measure(rounds, &mut report)?;
    }
    if PARTS.iter().any(|(part, _)| wanted(part)) {
        let lab = lab::Lab::up()?;
        for (part, measure) in PARTS.iter().filter(|(part, _)| wanted(part)) {
            // One part's failure does not cost the others' figures.
            if let Err(error) = measure(&lab, rounds, &mut report) {
                eprintln!("{part}: {error:#}");
                failed.push(*part);
            }
        }
    }
    report.print();
    anyhow::ensure!(failed.is_empty(), "not measured to the end: {}", failed.join(", "));
    Ok(())
}
