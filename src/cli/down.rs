//! `minilab down` and `minilab delete`: both always work, twice too.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{Answer, Outcome, Output, Trouble, kubeconfig};
use crate::lab::protocol::{Control, Request};
use crate::lab::removal::{self, RemovalError};
use crate::lab::state::LabDir;

/// How long roles have to end before the lab's plug is pulled.
const GRACE: Duration = Duration::from_secs(8);

#[derive(Args)]
pub struct Down {
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    output: Output,
}

impl Down {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let ran = lab.is_running();
        stop(lab)?;
        let context = kubeconfig::give_back(lab);
        say(
            self.output,
            "down",
            lab,
            if ran { "is down; its data is kept" } else { "was not running" },
            context,
        )
    }
}

impl Delete {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let there = lab.state.exists();
        stop(lab)?;
        let context = kubeconfig::give_back(lab);
        if let Err(error) = kubeconfig::remove(lab) {
            eprintln!("warning: your kubeconfig may still name this lab: {error:#}");
        }
        if there {
            let _lock = lab.lock()?;
            remove(lab)?;
        }
        say(self.output, "deleted", lab, if there { "is deleted" } else { "was not there" }, context)
    }
}

fn say(
    output: Output,
    result: &str,
    lab: &LabDir,
    what: &str,
    context: anyhow::Result<Option<String>>,
) -> Outcome {
    let context = context.unwrap_or_else(|error| {
        eprintln!("warning: your kubectl context may still be this lab's: {error:#}");
        None
    });
    if output.json() {
        let context = context.filter(|context| !context.is_empty());
        super::print_json(&json!({"result": result, "lab": lab.name, "context": context}))?;
        return Ok(Answer::Done);
    }
    eprintln!("Lab {} {what}", lab.name);
    match context.as_deref() {
        None => {}
        Some("") => eprintln!("kubectl has no current context now"),
        Some(previous) => eprintln!("Set kubectl context back to \"{previous}\""),
    }
    Ok(Answer::Done)
}

/// Ends a running lab: by asking, and when that does not help by ending its keeper.
fn stop(lab: &LabDir) -> Result<(), Trouble> {
    if !lab.is_running() {
        return Ok(());
    }
    let until = Instant::now() + GRACE;
    // A lab that cannot be asked is ended below.
    let _ = Control::connect(lab).and_then(|control| control.tell(&Request::Down));
    if ended(lab, until) {
        return Ok(());
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if let Some(keeper) = lab.keeper() {
            let _ = kill(Pid::from_raw(keeper), signal);
        }
        if ended(lab, Instant::now() + Duration::from_secs(2)) {
            return Ok(());
        }
    }
    Err(Trouble::new(
        Answer::Failed,
        format_args!("lab {} does not end", lab.name),
        "kill its process named minilab-keeper; everything else goes with it",
    ))
}

fn ended(lab: &LabDir, until: Instant) -> bool {
    loop {
        if !lab.is_running() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Removes what a first `up` that was killed has left.
pub fn empty(lab: &LabDir) -> Result<(), Trouble> {
    removal::contents(lab).map_err(|error| by_hand(error, &lab.state))
}

/// Removes a lab that does not run, and the directory of labs when it was the last.
pub fn remove(lab: &LabDir) -> Result<(), Trouble> {
    remove_tree(lab, &lab.state)?;
    if let Some(parent) = lab.state.parent() {
        // Another lab may be in it.
        let _ = std::fs::remove_dir(parent);
    }
    Ok(())
}

/// Removes one file or directory of a lab, whoever in the lab it belongs to.
pub fn remove_tree(lab: &LabDir, path: &Path) -> Result<(), Trouble> {
    removal::tree(lab, path).map_err(|error| by_hand(error, path))
}

fn by_hand(error: RemovalError, path: &Path) -> Trouble {
    Trouble { remedy: Some(format!("sudo rm -r {}", path.display())), ..Trouble::from(error) }
}

/// Removes a directory; run by [`removal`] as root of the lab.
#[derive(Args)]
pub struct RemoveTree {
    path: PathBuf,
}

impl RemoveTree {
    pub fn run(self) -> Outcome {
        std::fs::remove_dir_all(&self.path).with_context(|| format!("remove {}", self.path.display()))?;
        Ok(Answer::Done)
    }
}
