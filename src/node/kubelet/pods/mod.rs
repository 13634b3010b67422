//! The pods of this node: a worker each, woken by the API, by the pod's shim, by probes and by time.
//!
//! Reading order: [`view`] what is known, [`step`] what follows from it (pure), [`status`] how it is told
//! (pure), `worker` who does it, `dispatch` who wakes the workers.

mod address;
mod admit;
mod conditions;
mod container_status;
mod dispatch;
mod downward;
mod env;
mod etc;
mod files;
mod hook;
mod host_ports;
mod launch;
mod log_files;
mod memory;
mod objects;
mod probe;
mod qos;
mod reporter;
mod services;
mod spec;
mod static_pods;
mod status;
mod step;
mod sysctl;
mod view;
mod volumes;
mod worker;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use ipnet::Ipv4Net;

pub use dispatch::{Pods, run};
pub use log_files::rotate as rotate_logs;
pub use static_pods::is_static;

use crate::node::image::ImageError;
use crate::node::shim::ShimError;

/// What can go wrong with a pod. The texts are what events and container states show.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("no IP addresses available in range set: {range}")]
    NoAddress { range: Ipv4Net },
    /// `CreateContainerConfigError`
    #[error("{0}")]
    Config(String),
    #[error("{what} \"{name}\" not found")]
    Missing { what: &'static str, name: String },
    #[error("{0}")]
    Volume(String),
    #[error("failed to fetch token: {message}")]
    Token { message: String },
    #[error("{message}")]
    Api { message: String },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Shim(#[from] ShimError),
}
