//! A Lease a server, by which agents count the servers there are (`pkg/server/leases`).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::flags::Flags;
use crate::client;
use crate::tunnel::konnectivity::TunnelError;

const DURATION: i32 = 30;
const RENEW: Duration = Duration::from_secs(15);

/// A server's own lease.
pub struct Own {
    name: String,
    namespace: String,
    label: (String, String),
    holder: String,
}

impl Own {
    pub fn of(flags: &Flags, server_id: &str) -> Result<Self, TunnelError> {
        let (key, value) = flags
            .lease_label
            .split_once('=')
            .ok_or_else(|| TunnelError::Flags(format!("invalid lease label: {}", flags.lease_label)))?;
        Ok(Self {
            name: name(server_id),
            namespace: flags.lease_namespace.clone(),
            label: (key.to_owned(), value.to_owned()),
            holder: server_id.to_owned(),
        })
    }

    fn lease(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some([self.label.clone()].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: Some(DURATION),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn name(server_id: &str) -> String {
    format!("konnectivity-proxy-server-{server_id}")
}

/// The API as the server's kubeconfig, or its pod's account, has it.
pub fn client(flags: &Flags) -> Result<Client, TunnelError> {
    Ok(match flags.kubeconfig.as_os_str().is_empty() {
        true => client::in_cluster()?,
        false => client::from_kubeconfig(&flags.kubeconfig)?,
    })
}

/// Renews the own lease and removes those of servers that are gone, for ever.
pub async fn keep(client: Client, own: Own) {
    let api: Api<Lease> = Api::namespaced(client, &own.namespace);
    let mut backoff = client::Backoff::new();
    loop {
        let params = PatchParams::apply("konnectivity-server").force();
        match api.patch(&own.name, &params, &Patch::Apply(own.lease())).await {
            Ok(_) => {
                backoff.reset();
                collect(&api, &own).await;
                tokio::time::sleep(RENEW).await;
            }
            Err(error) => {
                tracing::warn!(error = %crate::net::go_text(&error), "the server's lease cannot be renewed");
                backoff.wait().await;
            }
        }
    }
}

async fn collect(api: &Api<Lease>, own: &Own) {
    let (key, value) = &own.label;
    let list = ListParams::default().labels(&format!("{key}={value}"));
    let Ok(leases) = api.list(&list).await else { return };
    for lease in leases.items.iter().filter(|lease| !is_valid(lease, Timestamp::now())) {
        let preconditions = Preconditions { resource_version: lease.resource_version(), uid: lease.uid() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let _ = api.delete(&lease.name_any(), &params).await;
    }
}

/// Whether a lease's holder may still be believed to be there.
fn is_valid(lease: &Lease, now: Timestamp) -> bool {
    crate::tunnel::konnectivity::agent::lease_is_valid(lease, now)
}

/// Removes the own lease at the end.
pub async fn release(flags: &Flags, server_id: &str) {
    let Ok(client) = client(flags) else { return };
    let api: Api<Lease> = Api::namespaced(client, &flags.lease_namespace);
    let (name, params) = (name(server_id), DeleteParams::default());
    let gone = api.delete(&name, &params);
    let _ = tokio::time::timeout(Duration::from_secs(1), gone).await;
}
