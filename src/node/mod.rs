//! A node's roles. They meet the control plane on the wire only.

pub mod dns;
pub mod image;
pub mod kubelet;
mod page;
pub mod policy;
pub mod proxy;
pub mod shim;
