//! kube-controller-manager: the control loops and the certificate signers.

use std::process::ExitCode;

/// The role's entry point.
pub fn run(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this part has not landed")
}
