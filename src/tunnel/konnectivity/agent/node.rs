//! Which pods are this node's: `cidr=auto` among the identifiers, a minilab word, becomes the range the API
//! has for the node named by `host`. Upstream's server passes it over, as all it cannot read.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::time::timeout;

use super::flags::Flags;
use crate::client;

const AUTO: &str = "cidr=auto";
/// How long a range that is still being allocated is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The node whose range is asked for.
pub fn asks(identifiers: &str) -> Option<&str> {
    let mut words = identifiers.split('&');
    words.clone().find(|word| *word == AUTO)?;
    words.find_map(|word| word.strip_prefix("host="))
}

/// The identifiers with what was found out.
pub fn resolved(identifiers: &str, range: Option<&str>) -> String {
    let words = identifiers.split('&').filter_map(|word| match (word, range) {
        (AUTO, Some(range)) => Some(format!("cidr={range}")),
        (AUTO, None) => None,
        (word, _) => Some(word.to_owned()),
    });
    words.collect::<Vec<_>>().join("&")
}

/// A node's pod range; nothing when the API does not say in time.
pub async fn range(flags: &Flags, node: &str) -> Result<String, ()> {
    let client = match flags.kubeconfig.as_os_str().is_empty() {
        true => client::in_cluster(),
        false => client::from_kubeconfig(&flags.kubeconfig),
    };
    let nodes: Api<Node> = Api::all(client.map_err(drop)?);
    let asking = async {
        let mut backoff = client::Backoff::new();
        loop {
            let found = nodes.get(node).await.ok().and_then(|node| node.spec?.pod_cidr);
            match found {
                Some(range) => return range,
                None => backoff.wait().await,
            }
        }
    };
    timeout(PATIENCE, asking).await.map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_becomes_the_nodes_range_or_goes() {
        let given = "ipv4=192.0.2.11&host=node-1&cidr=auto";
        assert_eq!(asks(given), Some("node-1"));
        assert_eq!(resolved(given, Some("10.244.1.0/24")), "ipv4=192.0.2.11&host=node-1&cidr=10.244.1.0/24");
        assert_eq!(resolved(given, None), "ipv4=192.0.2.11&host=node-1");
        assert_eq!(asks("host=node-1&cidr=10.0.0.0/8"), None);
        assert_eq!(asks("cidr=auto"), None);
    }
}
