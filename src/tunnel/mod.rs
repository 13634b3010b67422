//! The roads from the control plane to the nodes that are not a plain connection.
//!
//! Konnectivity, whose agents dial in from the nodes, as upstream's `apiserver-network-proxy` has it; and SSH,
//! by which the API server dials them, as it did until 1.22. The API server's half is what [`roads`] makes of
//! its command line; the rest are roles.

mod konnectivity;
mod ssh;

use crate::net::{RoadSigns, Roads};

pub use konnectivity::{agent, packet, rpc, server};
pub use ssh::sshd;

/// The API server's roads. Where both are asked for, an egress the configuration names goes by that.
pub fn roads(signs: &RoadSigns) -> anyhow::Result<Roads> {
    let mut roads = Roads::default();
    if !signs.ssh_user.is_empty() {
        let login = ssh::Login {
            user: &signs.ssh_user,
            keyfile: &signs.ssh_keyfile,
            known_hosts: signs.ssh_known_hosts.as_deref(),
        };
        let (road, nodes) = ssh::road(login)?;
        (roads.cluster, roads.nodes) = (road, Some(nodes));
    }
    konnectivity::lay(signs.egress.as_deref(), &mut roads)?;
    Ok(roads)
}
