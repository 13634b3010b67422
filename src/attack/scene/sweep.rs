//! What an attack that was killed has left where it has no namespace of its own: requests, taints, addresses a
//! node claimed, and files of whoever found or used them.

use serde_json::{Value, json};

use super::Scene;
use crate::attack::AttackError;
use crate::lab::plan::HostKind;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
/// How an attack's own things begin where they cannot have its label.
const OURS: [&str; 2] = ["marker-", "evil-"];
const TAINT: &str = "minilab.dev/marker-";
const FILES: &str = "rm -f /tmp/leaked.pem /tmp/join-evil-*.yaml";

impl Scene<'_> {
    /// Takes all of it away. What is not there is as good.
    pub(super) fn sweep(&self) -> Result<(), AttackError> {
        let names = |tree: Option<Value>| -> Vec<String> {
            let items = tree.and_then(|tree| tree["items"].as_array().cloned()).unwrap_or_default();
            items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
        };
        for name in names(self.api_json(REQUESTS)) {
            if OURS.iter().any(|prefix| name.starts_with(prefix)) {
                self.api_delete(&format!("{REQUESTS}/{name}"));
            }
        }
        for node in self.nodes() {
            let path = format!("/api/v1/nodes/{}", node.name);
            let Some(tree) = self.api_json(&path) else { continue };
            if let Some(kept) = without(&tree["spec"]["taints"], |taint| {
                taint["key"].as_str().is_some_and(|key| key.starts_with(TAINT))
            }) {
                self.api_patch(&path, &json!({"spec": {"taints": kept}}))?;
            }
            let others: Vec<String> = self.nodes().into_iter().map(|other| other.address).collect();
            if let Some(kept) = without(&tree["status"]["addresses"], |claimed| {
                let address = claimed["address"].as_str().unwrap_or_default();
                address != node.address && others.iter().any(|other| other == address)
            }) {
                self.api_patch(&format!("{path}/status"), &json!({"status": {"addresses": kept}}))?;
            }
        }
        let hosts =
            self.plan.hosts.iter().filter(|host| matches!(host.kind, HostKind::Wire | HostKind::Node));
        for host in hosts {
            // A host whose plug is pulled has no such files.
            let _ = self.output(&host.name, ["sh", "-c", FILES].map(str::to_owned).to_vec(), Vec::new());
        }
        Ok(())
    }
}

/// A list without some of its members; nothing where it has none of them.
fn without(list: &Value, leaves: impl Fn(&Value) -> bool) -> Option<Value> {
    let all = list.as_array()?;
    let kept: Vec<Value> = all.iter().filter(|member| !leaves(member)).cloned().collect();
    (kept.len() < all.len()).then_some(Value::Array(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_attack_made_goes_from_a_list() {
        let taints = json!([{"key": "mine"}, {"key": "minilab.dev/marker-1"}]);
        let ours = |taint: &Value| taint["key"].as_str().unwrap().starts_with(TAINT);
        assert_eq!(without(&taints, ours), Some(json!([{"key": "mine"}])));
        assert_eq!(without(&json!([{"key": "mine"}]), ours), None);
        assert_eq!(without(&Value::Null, ours), None);
    }
}
