//! `minilab kubectl …`: the user's own kubectl with the lab's kubeconfig. It becomes that process, so
//! signals, terminal and exit code are kubectl's.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use super::{Answer, Outcome, Trouble};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Kubectl {
    /// Everything after `kubectl` is passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<String>,
}

impl Kubectl {
    #[cfg(test)]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Help and what kubectl does on its own.
    fn needs_no_lab(&self) -> bool {
        let alone = ["help", "completion", "config", "options", "plugin", "kustomize"];
        self.arguments.first().is_none_or(|word| alone.contains(&word.as_str()))
            || self.arguments.iter().any(|word| ["-h", "--help", "--client"].contains(&word.as_str()))
    }

    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.is_running() && !self.needs_no_lab() {
            return Err(Trouble::not_running(lab));
        }
        let error = Command::new("kubectl").args(self.arguments).env("KUBECONFIG", lab.kubeconfig()).exec();
        Err(match error.kind() {
            std::io::ErrorKind::NotFound => Trouble::new(
                Answer::Failed,
                "there is no kubectl on PATH",
                "https://kubernetes.io/docs/tasks/tools/ tells where to get it",
            ),
            _ => Trouble::from(anyhow::Error::from(error).context("cannot run kubectl")),
        })
    }
}
