//! The heartbeat: a Lease in kube-node-lease, renewed every ten seconds.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::warn;

use super::super::api_text;
use crate::client::Backoff;

/// `nodeLeaseDurationSeconds`.
const DURATION_SECONDS: i32 = 40;
/// A quarter of it.
const RENEW: Duration = Duration::from_secs(10);

/// Creates the lease if need be and renews it for ever.
pub async fn renew(client: Client, node: Node) {
    let api: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let name = node.metadata.name.clone().unwrap_or_default();
    let (mut backoff, mut known) = (Backoff::new(), false);
    loop {
        let outcome = match known {
            true => touch(&api, &name).await,
            false => api.create(&PostParams::default(), &lease(&node)).await.map(|_| ()),
        };
        match outcome {
            Ok(()) => known = true,
            Err(kube::Error::Api(status)) if status.code == 409 => {
                known = true;
                continue;
            }
            Err(kube::Error::Api(status)) if status.code == 404 && known => {
                known = false;
                continue;
            }
            Err(error) => {
                warn!(error = api_text(&error), "Failed to update lease");
                backoff.wait().await;
                continue;
            }
        }
        backoff.reset();
        tokio::time::sleep(RENEW).await;
    }
}

async fn touch(api: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    let spec = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": DURATION_SECONDS,
        "renewTime": MicroTime(Timestamp::now()),
    });
    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await.map(|_| ())
}

fn lease(node: &Node) -> Lease {
    let name = node.metadata.name.clone().unwrap_or_default();
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some("kube-node-lease".into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    }
}
