//! What a learner's hand leaves in a lab and no plan knows of: manifests of one's own, packet filters, serving
//! certificates that were signed before, workloads patched with fields nobody planned. All of it goes when an
//! exercise begins.
//!
//! Left alone on purpose: files no plan has (notes, keys), and filters where the machine has no `nft` (then
//! nobody can have written one).

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::CourseError;
use super::ground::Ground;
use crate::lab::files::Tree;
use crate::lab::plan::{MANIFESTS, Plan};
use crate::lab::state::LabDir;

const CONTROL: &str = "control";
/// What a kubelet shows once the cluster has signed it; it is shown again for as long as it is there.
const SERVING: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";
const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// Tables that are the lab's own keep their names' beginnings.
const FILTERS: &str = "command -v nft > /dev/null || exit 0; nft list tables | while read -r _ family name; do \
                       case $name in minilab*|kube-*) ;; *) nft delete table $family $name ;; esac; done";
/// Who may write a workload without leaving anything behind.
const WRITERS: [&str; 4] = ["minilab", "minilab-course", "kubeadm", "kube-controller-manager"];

/// Removes manifests that no plan has; the supervisor ends their roles as it sees them go.
pub fn manifests(lab: &LabDir, plan: &Plan) -> Result<(), CourseError> {
    let control = plan.hosts.iter().filter(|host| host.name == CONTROL);
    let planned: BTreeSet<&Path> =
        control.flat_map(|host| &host.files).map(|file| file.path.as_path()).collect();
    let directory = lab.host(CONTROL).join(MANIFESTS.trim_start_matches('/'));
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    let tree = Tree::of(lab, CONTROL)?;
    for entry in entries.flatten() {
        let path = Path::new(MANIFESTS).join(entry.file_name());
        if path.extension().is_some_and(|end| end == "yaml") && !planned.contains(path.as_path()) {
            tree.remove(&path)?;
        }
    }
    Ok(())
}

/// Removes nftables' tables that are not the lab's.
pub fn filters(ground: &Ground<'_>) {
    let argv = ["sh", "-c", FILTERS].map(str::to_owned);
    for host in &ground.plan.hosts {
        if let Err(error) = ground.command(&host.name, &argv, Vec::new()) {
            tracing::debug!(host = host.name, error, "Could not look at packet filters");
        }
    }
}

/// Has kubelets that are not to serve signed certificates forget the ones they have, and the API the requests.
pub fn serving_certificates(ground: &Ground<'_>) -> Result<(), CourseError> {
    for (node, _) in ground.nodes() {
        Tree::of(ground.lab, &node)?.remove(Path::new(SERVING))?;
    }
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    for csr in ground.items(path).map_err(CourseError::Spec)? {
        if csr["spec"]["signerName"] == SIGNER {
            let name = csr["metadata"]["name"].as_str().unwrap_or_default();
            ground.delete(&format!("{path}/{name}")).map_err(CourseError::Spec)?;
        }
    }
    Ok(())
}

/// Whether somebody else has written into a workload: a field that no plan has stays when the plan is put again.
pub fn is_patched(live: &Value) -> bool {
    let workload = live["kind"] == "Deployment" || live["kind"] == "DaemonSet";
    let fields = live["metadata"]["managedFields"].as_array();
    workload
        && fields.into_iter().flatten().any(|entry| {
            let manager = entry["manager"].as_str().unwrap_or_default();
            entry["subresource"].is_null() && !WRITERS.contains(&manager)
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workload_is_patched_by_kubectl_and_not_by_its_controller() {
        let written = |manager: &str, subresource: Value| {
            is_patched(&json!({"kind": "Deployment", "metadata": {"managedFields": [
                {"manager": "minilab"}, {"manager": manager, "subresource": subresource}]}}))
        };
        assert!(written("kubectl-patch", Value::Null));
        assert!(!written("kube-controller-manager", Value::Null));
        assert!(!written("kubectl-scale", json!("status")));
        assert!(!is_patched(&json!({"kind": "Secret", "metadata": {"managedFields": [{"manager": "x"}]}})));
    }
}
