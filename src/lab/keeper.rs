//! The keeper: the lab's process on the machine's side.

use std::process::ExitCode;

/// The role's entry point.
pub fn run(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this part has not landed")
}
