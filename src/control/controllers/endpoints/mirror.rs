//! EndpointSlices of Endpoints that people write by hand, for Services without a selector.
//!
//! kube-proxy and DNS read slices only. Endpoints that say they should not be mirrored, or that only hold
//! a leader's annotation, are left alone, and so are those of Services the endpoints controller keeps.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;

use super::reconcile::reconcile;
use super::selector;
use crate::client::informer::{key_of, split_key};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::workloads::ownership;
use crate::control::controllers::world::{Actor, World};

/// Annotations that speak of the Endpoints themselves (`cloneAndRemoveKeys`).
const NOT_COPIED: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", super::trigger::ANNOTATION];
const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Upstream mirrors no more addresses of a subset.
const MOST: usize = 1000;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.endpoints.on_change(move |old, new| {
        if let Some(endpoints) = new.or(old) {
            fed.add(key_of(&**endpoints));
        }
    });
    let fed = queue.clone();
    world.services.on_change(move |old, new| {
        if let Some(service) = new.or(old) {
            fed.add(key_of(&**service));
        }
    });
    let actor = world.actor("endpointslicemirroring-controller", "endpoint-slice-mirroring-controller");
    let world = world.clone();
    Box::pin(async move {
        world.services.synced().await;
        world.endpoints.synced().await;
        world.slices.synced().await;
        queue.work("endpointslicemirroring", 4, |key| sync(&world, &actor, key)).await;
    })
}

async fn sync(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let (namespace, name) = split_key(&key);
    let mut known = world.slices.in_namespace(namespace);
    known.retain(|slice| is_ours(slice, name) && slice.metadata.deletion_timestamp.is_none());
    let service = world.services.get(&key).filter(|service| selector(service).is_none());
    let mirrored = world.endpoints.get(&key).filter(|endpoints| service.is_some() && is_wanted(endpoints));
    let api: Api<EndpointSlice> = Api::namespaced(actor.client.clone(), namespace);
    let wanted = mirrored.iter().flat_map(|endpoints| desired(endpoints)).collect();
    reconcile(world, &api, known, wanted, None).await
}

fn is_ours(slice: &EndpointSlice, service: &str) -> bool {
    let label =
        |name: &str| slice.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    label(MANAGED_BY) == Some(US) && label(SERVICE) == Some(service)
}

fn is_wanted(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped =
        meta.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|value| value == "true");
    let leader = meta.annotations.as_ref().is_some_and(|notes| notes.contains_key(LEADER));
    meta.deletion_timestamp.is_none() && !skipped && !leader
}

/// One slice a subset and family of addresses.
fn desired(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for (family, six) in [("IPv4", false), ("IPv6", true)] {
            let some: Vec<Endpoint> = addresses(subset, six).take(MOST).collect();
            if !some.is_empty() {
                slices.push(slice(endpoints, subset, family, some));
            }
        }
    }
    slices
}

fn addresses(subset: &EndpointSubset, six: bool) -> impl Iterator<Item = Endpoint> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let other = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    ready
        .chain(other)
        .filter(move |(address, _)| address.ip.contains(':') == six)
        .map(|(address, ready)| endpoint(address, ready))
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(endpoints: &Endpoints, subset: &EndpointSubset, family: &str, some: Vec<Endpoint>) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.into(), name.clone());
    labels.insert(MANAGED_BY.into(), US.into());
    let notes = endpoints.metadata.annotations.iter().flatten();
    let notes = notes.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        address_type: family.into(),
        endpoints: Some(some),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(notes.map(|(key, value)| (key.clone(), value.clone())).collect()),
            owner_references: Some(vec![ownership::reference(endpoints)]),
            ..ObjectMeta::default()
        },
        ports: Some(ports.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoints(labels: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "default", "uid": "u", "labels": labels},
            "subsets": [{
                "addresses": [{"ip": "192.0.2.50"}, {"ip": "2001:db8::1"}],
                "notReadyAddresses": [{"ip": "192.0.2.51", "hostname": "spare"}],
                "ports": [{"name": "sql", "port": 5432}],
            }],
        }))
        .unwrap()
    }

    #[test]
    fn a_subset_becomes_a_slice_a_family_with_readiness_kept() {
        let slices = desired(&endpoints(json!({"app": "db"})));
        let families: Vec<&str> = slices.iter().map(|slice| slice.address_type.as_str()).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        let ready: Vec<_> =
            slices[0].endpoints.iter().flatten().map(|one| one.conditions.as_ref().unwrap().ready).collect();
        assert_eq!(ready, [Some(true), Some(false)]);
        let labels = slices[0].metadata.labels.as_ref().unwrap();
        assert_eq!(
            (labels["app"].as_str(), labels[SERVICE].as_str(), labels[MANAGED_BY].as_str()),
            ("db", "db", US)
        );
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(5432));
        let mut noted = endpoints(json!({}));
        let notes = json!({"team": "db", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
        noted.metadata.annotations = serde_json::from_value(notes).unwrap();
        let copied = desired(&noted)[0].metadata.annotations.clone().unwrap();
        assert_eq!(copied.into_iter().collect::<Vec<_>>(), [("team".to_owned(), "db".to_owned())]);
    }

    #[test]
    fn endpoints_that_ask_for_it_are_not_mirrored() {
        assert!(is_wanted(&endpoints(json!({}))));
        assert!(!is_wanted(&endpoints(json!({SKIP: "true"}))));
    }
}
