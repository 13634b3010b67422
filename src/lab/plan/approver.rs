//! The approver of kubelet serving certificates: only where kubelets ask for one.
//!
//! Upstream's controller manager never approves these, so a cluster that wants them brings an approver of
//! its own; this is the lab's, with its manifest, its kubeconfig and the inventory it may go by.

use std::path::PathBuf;

use super::build::{node_address, node_name};
use super::control::{MANIFESTS, text};
use super::manifest::StaticPod;
use super::{Contents, Credential, Kubeconfig, PlannedFile, Trust};
use crate::lab::paths::{Mode, Setting, Settings};

pub const NAME: &str = "csr-approver";
/// Who it is to the API server.
pub const USER: &str = "minilab:csr-approver";
const CONF: &str = "/etc/kubernetes/csr-approver.conf";
const INVENTORY: &str = "/etc/kubernetes/inventory.yaml";

/// Whether there is anything to approve.
pub fn wanted(settings: &Settings) -> bool {
    settings.hardened(Setting::ToKubeletServing)
}

/// Its files in control.
pub fn files(settings: &Settings, nodes: &[usize]) -> Vec<PlannedFile> {
    let kubeconfig = Kubeconfig {
        server: super::endpoint(),
        user: USER.into(),
        trust: Trust::ClusterCa,
        credential: Credential::Certificate(NAME.into()),
    };
    let mut flags = vec![format!("--kubeconfig={CONF}")];
    flags.push(match settings.mode(Setting::ToKubeletApproval) {
        Mode::Insecure => "--approve=any".into(),
        Mode::Partial => "--approve=node-object".into(),
        Mode::Hardened => "--approve=inventory".into(),
    });
    let by_inventory = settings.hardened(Setting::ToKubeletApproval);
    if by_inventory {
        flags.push(format!("--inventory={INVENTORY}"));
    }
    let pod = StaticPod { name: NAME, flags, cpu: "10m", probe: None, advertised: None };
    let mut files = vec![
        PlannedFile { path: PathBuf::from(CONF), mode: 0o600, contents: Contents::Kubeconfig(kubeconfig) },
        text(&format!("{MANIFESTS}/{NAME}.yaml"), 0o600, pod.to_yaml()),
    ];
    if by_inventory {
        files.push(text(INVENTORY, 0o644, inventory(nodes)));
    }
    files
}

/// What every node is called and where it is, as whoever built the site wrote it down.
fn inventory(nodes: &[usize]) -> String {
    let row = |number: &usize| format!("{0}:\n- {0}\n- {1}\n", node_name(*number), node_address(*number));
    nodes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inventory_has_each_nodes_name_and_address() {
        assert_eq!(inventory(&[1, 2]), "node-1:\n- node-1\n- 192.0.2.11\nnode-2:\n- node-2\n- 192.0.2.12\n");
    }
}
