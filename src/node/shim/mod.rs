//! containerd-shim: one process a pod, which holds the pod. It forks the pod's containers, owns their
//! pipes, writes CRI logs and exit records, answers the kubelet on a socket, and outlives the kubelet.
//!
//! Stands for containerd, its shim and runc together. [`Runtime`] is the kubelet's side; everything else runs
//! in the shim or in what it forks. Left out for now: exec, attach and port-forward, which will be further
//! requests on the same socket, with descriptors passed over it.

mod birth;
mod caller;
mod command;
mod connection;
mod container;
mod daemon;
mod identity;
mod limits;
mod log;
mod pause;
mod process;
mod program;
mod protocol;
mod record;
mod root;
mod runtime;
mod sandbox;
mod spec;

#[cfg(test)]
mod tests;

pub use birth::run;
pub use limits::support;
pub use pause::run as pause;
pub use protocol::{Directories, RefusalKind};
pub use runtime::{Runtime, ShimError};
pub use spec::*;
