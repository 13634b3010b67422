//! The `kubernetes` Service, and who answers for it: every API server holds a lease in the store, and
//! together they keep Endpoints and an EndpointSlice of those whose lease is fresh
//! (`pkg/controlplane/controller/kubernetesservice`, `.../reconcilers/lease.go`).
//!
//! One that stops in good order gives up its lease. The last one leaves the endpoints as they are, as
//! upstream does ("refusing to erase all endpoints"): clients find it there when it comes back. Upstream's
//! leases are etcd's; here each says until when it holds.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::handlers::meta;
use super::server::Api;
use super::{encode, registry, system};
use crate::api::status::{Result, Status};
use crate::control::store::{Change, Expect, StoreError};

/// Beside the API's resources; etcd has `/registry/masterleases/`.
const LEASES: &str = "masterleases";
/// `DefaultEndpointReconcilerTTL`: one missed renewal of ten seconds is forgiven.
const HOLDS: Duration = Duration::from_secs(15);

/// `--endpoint-reconciler-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReconcilerType {
    /// Every server that renews its lease.
    Lease,
    /// This one alone, as upstream with one API server.
    MasterCount,
    /// Somebody else keeps the endpoints.
    None,
}

/// Where the API server can be reached.
#[derive(Debug, Clone, Copy)]
pub struct Advertised {
    pub address: IpAddr,
    pub port: u16,
}

/// This server as one of them.
#[derive(Debug, Clone, Copy)]
pub struct Masters {
    at: Advertised,
    how: ReconcilerType,
}

impl Masters {
    pub fn new(at: Advertised, how: ReconcilerType) -> Self {
        Self { at, how }
    }

    /// Makes the Service, renews this server's lease, and mends the endpoints.
    pub async fn ensure(&self, api: &Arc<Api>) -> Result<()> {
        let (service, lease) = tokio::join!(self.service(api), self.renew(api));
        service.and(lease)?;
        let addresses = match self.how {
            ReconcilerType::None => return Ok(()),
            ReconcilerType::MasterCount => BTreeSet::from([self.at.address]),
            ReconcilerType::Lease => holders(api),
        };
        self.reconcile(api, &addresses).await
    }

    /// Gives up the lease; the others take this server out of the endpoints, and so it does itself.
    pub async fn leave(&self, api: &Arc<Api>) {
        if self.how != ReconcilerType::Lease {
            return;
        }
        let key = self.at.address.to_string();
        let Some(entry) = api.store.get(LEASES, &key) else { return };
        let last = encode::object(&entry).unwrap_or_default();
        let given_up = api.store.write(LEASES, &key, None, Change::Delete(encode::draft(&last))).await;
        let others = holders(api);
        let outcome = match (given_up, others.is_empty()) {
            (Err(error), _) => Err(Status::internal(error)),
            (Ok(_), true) => Ok(()),
            (Ok(_), false) => self.reconcile(api, &others).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, "this server could not be taken out of the endpoints of kubernetes");
        }
    }

    async fn service(&self, api: &Arc<Api>) -> Result<()> {
        let first = Ipv4Addr::from(u32::from(api.service_range.network()) + 1);
        let service = json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": first, "clusterIPs": [first],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "internalTrafficPolicy": "Cluster",
                "ports": self.ports(),
            },
        });
        system::create(api, "", "services", service).await
    }

    /// At a start: the Service again as clients know it, if somebody changed its ports or its type
    /// (`getMasterServiceUpdateIfNeeded`).
    pub async fn mend_service(&self, api: &Arc<Api>) -> Result<()> {
        let Some(row) = registry::by_name("", "services") else { return Ok(()) };
        let key = row.key("default", "kubernetes");
        let Some(entry) = api.store.get(&row.bucket, &key) else { return Ok(()) };
        let old = encode::object(&entry)?;
        let mut object = old.clone();
        object["spec"]["type"] = json!("ClusterIP");
        object["spec"]["ports"] = self.ports();
        if object == old {
            return Ok(());
        }
        let expect = Some(Expect::Revision(entry.mod_revision));
        match api.store.write(&row.bucket, &key, expect, Change::Put(encode::draft(&object))).await {
            Ok(_) | Err(StoreError::Modified { .. } | StoreError::Missing) => Ok(()),
            Err(error) => Err(Status::internal(error)),
        }
    }

    fn ports(&self) -> Value {
        json!([{"name": "https", "protocol": "TCP", "port": 443, "targetPort": self.at.port}])
    }

    async fn renew(&self, api: &Arc<Api>) -> Result<()> {
        if self.how != ReconcilerType::Lease {
            return Ok(());
        }
        let address = self.at.address.to_string();
        let lease = lease(&address, Timestamp::now());
        match api.store.write(LEASES, &address, None, Change::Put(encode::draft(&lease))).await {
            // Of two writes at once the other one renewed it.
            Ok(_) | Err(StoreError::Exists | StoreError::Modified { .. }) => Ok(()),
            Err(error) => Err(Status::internal(error)),
        }
    }

    async fn reconcile(&self, api: &Arc<Api>, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        if addresses.is_empty() {
            let why = "no API server IP addresses were listed in storage, refusing to erase all endpoints for \
                       the kubernetes Service";
            return Err(Status::internal(why));
        }
        let ports = json!([{"name": "https", "protocol": "TCP", "port": self.at.port}]);
        let listed: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let endpoints = json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{"addresses": listed, "ports": ports}],
        });
        let ready: Vec<Value> =
            addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
        let slice = json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": if self.at.address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": ready,
            "ports": ports,
        });
        let (endpoints, slice) = tokio::join!(
            system::keep_fields(api, "", "endpoints", endpoints),
            system::keep_fields(api, "discovery.k8s.io", "endpointslices", slice),
        );
        endpoints.and(slice)
    }
}

fn lease(address: &str, now: Timestamp) -> Value {
    let until = now.saturating_add(jiff::SignedDuration::from_secs(HOLDS.as_secs() as i64));
    let until = until.unwrap_or(now).to_string();
    json!({"metadata": {"name": address}, "until": until})
}

/// Whose lease holds.
fn holders(api: &Arc<Api>) -> BTreeSet<IpAddr> {
    let Ok(page) = api.store.list(LEASES, "", None, None, None) else { return BTreeSet::new() };
    let leases: Vec<Value> = page.entries.iter().filter_map(|entry| encode::object(entry).ok()).collect();
    leases.iter().filter_map(|lease| holder(lease, Timestamp::now())).collect()
}

fn holder(lease: &Value, now: Timestamp) -> Option<IpAddr> {
    let until: Timestamp = lease["until"].as_str()?.parse().ok()?;
    (until > now).then(|| meta::text(lease, "name").parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_not_renewed_ends() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later = |seconds| now + jiff::SignedDuration::from_secs(seconds);
        let lease = lease("198.51.100.2", now);
        assert_eq!(holder(&lease, later(14)), Some([198, 51, 100, 2].into()));
        assert_eq!(holder(&lease, later(15)), None);
        assert_eq!(holder(&json!({"metadata": {"name": "198.51.100.2"}}), now), None);
    }
}
