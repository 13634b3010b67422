//! The supervisor: pid 1 of the lab.

use std::process::ExitCode;

/// The role's entry point.
pub fn run(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this part has not landed")
}
