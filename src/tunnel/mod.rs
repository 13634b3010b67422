//! The roads from the control plane to the nodes that are not a plain connection.
//!
//! Konnectivity, whose agents dial in from the nodes, as upstream's `apiserver-network-proxy` has it. The API
//! server's half is what [`roads`] makes of an `EgressSelectorConfiguration`; the other two are roles.

mod konnectivity;

pub use konnectivity::{agent, server};

/// The API server's roads, by the file its `--egress-selector-config-file` names.
pub fn roads(file: Option<&std::path::Path>) -> anyhow::Result<crate::net::Roads> {
    Ok(konnectivity::roads(file)?)
}
