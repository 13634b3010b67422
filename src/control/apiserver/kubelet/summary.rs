//! What a kubelet measured of its node and pods, as metrics-server reads it.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Backend, KubeletClient};
use crate::control::apiserver::proxy::Streamed;

/// A node's summary has about a kilobyte a container.
const MOST: usize = 8 << 20;
/// A node that does not answer is left out, as metrics-server leaves it out.
const PATIENCE: Duration = Duration::from_secs(5);

impl KubeletClient {
    /// `/stats/summary`, cpu and memory only; nothing from a node that does not answer.
    pub async fn summary(&self, node: &str) -> Option<Value> {
        let location = self.locate(node).ok()?;
        let path = "/stats/summary?only_cpu_and_memory=true";
        let ask = async {
            let answer = self.get(&location, path, Backend::AsConfigured).await.ok()?;
            if !answer.response.status().is_success() {
                return None;
            }
            let streamed = Body::new(Streamed::new(answer.response.into_body(), answer.connection));
            let body = Limited::new(streamed, MOST).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        let outcome = tokio::time::timeout(PATIENCE, ask).await.ok().flatten();
        if outcome.is_none() {
            tracing::debug!(node, "the kubelet gave no summary");
        }
        outcome
    }
}
