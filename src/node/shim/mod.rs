//! containerd-shim: one process a pod, which holds the pod. It forks the pod's containers, owns their
//! pipes, writes CRI logs and exit records, answers the kubelet on a socket, and outlives the kubelet.

mod spec;

use std::process::ExitCode;

pub use spec::*;

/// The shim's entry point.
pub fn run(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this part has not landed")
}

/// `pause`: holds a pod's namespaces open.
pub fn pause(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this part has not landed")
}
