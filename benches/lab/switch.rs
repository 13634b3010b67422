//! `harden` and `soften`, beside a bare restart of the roles they restart.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::figures::{Report, median, ms};
use super::lab::Lab;

/// A setting, and the role that reads it.
const CASES: &[(&str, &str)] =
    &[("kubelet-access.read-only-port", "kubelet"), ("pod-to-apiserver.external-ips", "kube-apiserver")];

pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    for (setting, role) in CASES {
        let (mut switches, mut restarts) = (Vec::new(), Vec::new());
        for _ in 0..rounds.max(5) {
            for verb in ["soften", "harden"] {
                let said = lab.minilab(&[verb, setting, "-o", "json"])?.stdout;
                let said: Value = serde_json::from_slice(&said)?;
                let took = said["tookMs"].as_f64().context("a switch says how long it took")?;
                switches.push(Duration::from_secs_f64(took / 1000.0));
            }
            let from = Instant::now();
            lab.minilab(&["restart", role])?;
            restarts.push(from.elapsed());
        }
        let floor = format!("{} (restart {role})", ms(median(&mut restarts)));
        report.row(&format!("harden or soften {setting}"), ms(median(&mut switches)), floor, "500 ms");
    }
    // As the other parts found it.
    lab.minilab(&["soften", CASES[1].0])?;
    Ok(())
}
