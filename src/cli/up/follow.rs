//! Following a lab while it starts, and saying why when it does not.

use std::time::{Duration, Instant};

use crate::cli::progress::Progress;
use crate::cli::{Answer, Trouble, doctor};
use crate::lab::launch::{Launch, Next};
use crate::lab::protocol::Report;
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;

/// How long to wait, and for what.
pub struct Wait {
    pub until: Instant,
    pub for_api_only: bool,
}

/// Shows what the keeper reports until every role serves, or the API server alone when that is enough.
///
/// A lab whose API server serves by the deadline can be looked into, and is not given up.
pub fn follow(launch: &Launch, spec: &mut Spec, wait: &Wait, progress: &mut Progress) -> Result<(), Trouble> {
    let mut serving = false;
    while !(wait.for_api_only && serving) {
        let report = match launch.next(wait.until)? {
            Next::Report(report) => report,
            Next::Late if serving => return Ok(()),
            Next::Late => return Err(anyhow::anyhow!("the API server does not serve in time").into()),
            Next::Gone => return Err(anyhow::anyhow!("the lab ended while it was starting").into()),
        };
        match report {
            Report::Listening { port } => {
                if port != spec.port {
                    progress.note(&format!("127.0.0.1:{} is taken; this lab uses {port}", spec.port));
                }
                spec.port = port;
            }
            Report::Step { what, micros } => progress.tell_done(&what, Duration::from_micros(micros)),
            Report::Ready { role, host, finished, micros } => {
                serving |= role == "kube-apiserver";
                let what = if finished { "is done" } else { "serves" };
                progress.tell_done(&format!("{role}@{host} {what}"), Duration::from_micros(micros));
            }
            Report::Ended { role, host, how, log } => {
                progress
                    .note(&format!("{role}@{host} ended ({how}) and is started again: {}", log.display()));
            }
            Report::Up { .. } => {
                progress.done("Every role serves");
                return Ok(());
            }
            Report::Failed { error, remedy } => {
                return Err(Trouble { error: anyhow::anyhow!(error), answer: Answer::Failed, remedy });
            }
        }
    }
    Ok(())
}

/// Finds out whether it was the machine's fault, and what helps then.
pub fn explained(lab: &LabDir, trouble: Trouble) -> Trouble {
    let text = format!("{:#}", trouble.error);
    if text.contains("No space left on device") {
        let remedy = "free some space, or keep labs elsewhere with --state-dir DIR".to_owned();
        return Trouble { answer: Answer::MachineCannot, remedy: Some(remedy), ..trouble };
    }
    match doctor::what_is_missing(lab) {
        Some(remedy) => Trouble { answer: Answer::MachineCannot, remedy: Some(remedy), ..trouble },
        None => trouble,
    }
}

/// The end of the log that was written last: the lab that has it is about to be removed.
pub fn show_last_log(lab: &LabDir) {
    let logs = std::fs::read_dir(lab.state.join("logs")).into_iter().flatten().flatten();
    // The keeper's own log speaks of others' ends.
    let logs = logs.filter(|entry| entry.file_name() != "minilab-keeper.log");
    let newest = logs.max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    let Some(newest) = newest else { return };
    let text = std::fs::read(newest.path()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("last lines of {}:", newest.file_name().to_string_lossy());
    lines[lines.len().saturating_sub(8)..].iter().for_each(|line| eprintln!("  {line}"));
}
