//! containerd-shim: one process a pod, which holds the pod. It forks the pod's containers, owns their
//! pipes, writes CRI logs and exit records, answers the kubelet on a socket, and outlives the kubelet.
//!
//! Stands for containerd, its shim and runc together. [`Runtime`] is the kubelet's side; everything else runs
//! in the shim or in what it forks. Its streaming half (exec, attach, port-forward) passes descriptors over the
//! same socket: `session` is the kubelet's end of it, `attach` the shim's.

mod attach;
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
mod recipe;
mod record;
mod rights;
mod root;
mod runtime;
mod sandbox;
mod session;
mod spec;
mod streams;

#[cfg(test)]
mod tests;

pub use birth::run;
pub use limits::support;
pub use pause::run as pause;
pub use protocol::{Directories, RefusalKind};
pub use runtime::{Runtime, ShimError};
#[expect(unused_imports, reason = "what the kubelet's stream handlers name")]
pub use session::{Attach, Exec, Output, Reader, Terminal, Writer};
pub use spec::*;
