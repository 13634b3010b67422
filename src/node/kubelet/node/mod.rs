//! The Node object: registration, status, heartbeat lease.
//!
//! `pkg/kubelet/kubelet_node_status.go` and `nodelease`: the object is made once, its status sent when it
//! changes or every five minutes, its lease renewed every ten seconds.

mod lease;
mod object;
mod register;

pub use lease::renew;
pub use object::KUBELET_VERSION;
pub use register::{Registered, register, report};
