//! A host's init: pid 1 of a host; starts and reaps its roles as the supervisor says.

use std::process::ExitCode;

/// The role's entry point.
pub fn run(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this part has not landed")
}
