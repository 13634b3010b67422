//! `minilab version` and `minilab completion`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

use super::{Answer, Cli, Outcome, Output};
use crate::lab::plan::KUBERNETES_VERSION;

/// What `--version` says after the name.
pub const LINE: &str = env!("CARGO_PKG_VERSION");

#[derive(Args)]
pub struct Version {
    #[command(flatten)]
    output: Output,
}

impl Version {
    pub fn run(self) -> Outcome {
        match self.output.json() {
            true => super::print_json(&json!({"version": LINE, "kubernetesVersion": KUBERNETES_VERSION}))?,
            false => println!("minilab {LINE}, Kubernetes {KUBERNETES_VERSION}"),
        }
        Ok(Answer::Done)
    }
}

#[derive(Args)]
pub struct Completion {
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Outcome {
        clap_complete::generate(self.shell, &mut Cli::command(), "minilab", &mut std::io::stdout());
        Ok(Answer::Done)
    }
}
