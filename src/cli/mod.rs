//! What a person types and reads: one file a command.

use std::process::ExitCode;

/// Parses the command line and runs the command.
pub fn run() -> anyhow::Result<ExitCode> {
    anyhow::bail!("the command line has not landed")
}
