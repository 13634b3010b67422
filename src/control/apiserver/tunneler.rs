//! Tells a road that leads through the nodes which nodes there are (upstream's `pkg/master/tunneler`, which
//! asked every fifteen seconds and for external addresses alone; nodes here have only internal ones).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Sender;

use super::lookup::text;
use super::server::Api;
use super::{encode, registry};

/// When a watch ends before its time.
const AGAIN: Duration = Duration::from_secs(1);

/// Follows the nodes until the store is closed.
pub async fn tell(api: Arc<Api>, to: Sender<BTreeSet<String>>) {
    let Some(row) = registry::by_name("", "nodes") else { return };
    while api.store_open() {
        let from = api.store.revision();
        let addresses = addresses(&api, &row.bucket);
        to.send_if_modified(|known| {
            *known != addresses && {
                *known = addresses;
                true
            }
        });
        let Ok(mut changes) = api.store.watch(&row.bucket, from) else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        if changes.next().await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Where the API server would dial each node's kubelet.
fn addresses(api: &Api, bucket: &str) -> BTreeSet<String> {
    let Ok(page) = api.store.list(bucket, "", None, None, None) else { return BTreeSet::new() };
    let nodes = page.entries.iter().filter_map(|entry| encode::object(entry).ok());
    nodes
        .filter_map(|node| api.kubelets.locate(text(&node, "/metadata/name")).ok())
        .map(|at| at.host)
        .collect()
}
