//! The course: how long a learner waits for an exercise to begin, to be checked, to begin again.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::figures::{Report, median, ms};
use super::lab::Lab;

/// The tour. Beside `start` and `reset`: what the settings alone take to switch; beside `check`: one `status`.
pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let path = "apiserver-to-kubelet";
    let (mut resets, mut checks, mut switches, mut floors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let first = timed(|| lab.minilab(&["lab", "start", "0"]).map(drop))?;
    for _ in 0..rounds {
        lab.minilab(&["harden", path])?;
        resets.push(timed(|| lab.minilab(&["lab", "reset"]).map(drop))?);
        checks.push(timed(|| {
            let answer = lab.answer(&["lab", "check", "-o", "json"])?;
            ensure!(answer.status.code() == Some(3), "an exercise just begun is not passed");
            Ok(())
        })?);
        floors.push(timed(|| lab.minilab(&["status"]).map(drop))?);
        lab.minilab(&["harden", path])?;
        switches.push(timed(|| lab.minilab(&["soften", path]).map(drop))?);
    }
    let switch = median(&mut switches);
    report.row("lab start, the first time", ms(first), ms(switch), "2 s");
    report.row("lab reset after a harden", ms(median(&mut resets)), ms(switch), "2 s");
    report.row("lab check before the exploit", ms(median(&mut checks)), ms(median(&mut floors)), "");
    Ok(())
}

fn timed(act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let from = Instant::now();
    act()?;
    Ok(from.elapsed())
}
