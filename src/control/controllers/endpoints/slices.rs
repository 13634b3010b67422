//! EndpointSlices of Services with a selector.
//!
//! Pods that give a service's ports the same numbers share slices, at most a hundred in each.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;

use super::reconcile::reconcile;
use super::trigger::Triggers;
use super::{
    address, hostname, is_headless, members, publishes_not_ready, reference, selector, service_ports,
    services, target_port,
};
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::workloads::{ownership, pods};
use crate::control::controllers::world::{Actor, World};

const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const US: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
const FULL: usize = 100;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = services(world);
    watch_slices(world, &queue);
    let actor = world.actor("endpointslice-controller", "endpoint-slice-controller");
    let world = world.clone();
    Box::pin(async move {
        world.services.synced().await;
        world.pods.synced().await;
        world.slices.synced().await;
        let triggers = Triggers::default();
        queue.work("endpointslice", 8, |key| sync(&world, &actor, &triggers, key)).await;
    })
}

/// A slice of ours that somebody changed or deleted is put right.
fn watch_slices(world: &Rc<World>, queue: &Queue) {
    let fed = queue.clone();
    world.slices.on_change(move |old, new| {
        let Some(slice) = new.or(old).filter(|slice| is_ours(slice)) else { return };
        if let (Some(namespace), Some(service)) = (&slice.metadata.namespace, service_name(slice)) {
            fed.add(format!("{namespace}/{service}"));
        }
    });
}

fn label<'a>(slice: &'a EndpointSlice, name: &str) -> Option<&'a str> {
    slice.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn is_ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGED_BY) == Some(US)
}

fn service_name(slice: &EndpointSlice) -> Option<&str> {
    label(slice, SERVICE)
}

async fn sync(world: &World, actor: &Actor, triggers: &Triggers, key: String) -> Result<Next, kube::Error> {
    let Some(service) = world.services.get(&key) else {
        triggers.forget(&key);
        return Ok(Next::Done);
    };
    if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let (namespace, name) = crate::client::informer::split_key(&key);
    let mut known = world.slices.in_namespace(namespace);
    known.retain(|slice| {
        is_ours(slice) && service_name(slice) == Some(name) && slice.metadata.deletion_timestamp.is_none()
    });
    let api: Api<EndpointSlice> = Api::namespaced(actor.client.clone(), namespace);
    let zone = |node: &str| zone(world, node);
    let pods = members(world, &service);
    let trigger = triggers.first_change(&key, &service, &pods);
    reconcile(world, &api, known, desired(&service, &pods, &zone), trigger.as_deref()).await
}

/// The zone a node says it is in.
fn zone(world: &World, node: &str) -> Option<String> {
    world.nodes.get(node)?.metadata.labels.as_ref()?.get(ZONE).cloned()
}

/// Where a service's traffic should rather go, for each endpoint (`spec.trafficDistribution`).
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let mut hints = EndpointHints::default();
    match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => hints.for_zones = Some(vec![ForZone { name: zone?.to_owned() }]),
        "PreferSameNode" => {
            hints.for_nodes = Some(vec![ForNode { name: node?.to_owned() }]);
            hints.for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
        }
        _ => return None,
    }
    Some(hints)
}

/// The slices a service should have.
fn desired(service: &Service, pods: &[Rc<Pod>], zone: &dyn Fn(&str) -> Option<String>) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<String, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for pod in pods {
        let ports = ports_of(pod, service);
        let key = serde_json::to_string(&ports).unwrap_or_default();
        groups.entry(key).or_insert_with(|| (ports, Vec::new())).1.push(endpoint(pod, service, zone));
    }
    if groups.is_empty() {
        // A placeholder says that the service has nobody, as upstream does.
        return vec![slice(service, None, Vec::new())];
    }
    let mut slices = Vec::new();
    for (ports, mut endpoints) in groups.into_values() {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        for part in endpoints.chunks(FULL) {
            slices.push(slice(service, Some(ports.clone()), part.to_vec()));
        }
    }
    slices
}

fn slice(service: &Service, ports: Option<Vec<EndpointPort>>, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE.into(), name.clone());
    labels.insert(MANAGED_BY.into(), US.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    EndpointSlice {
        address_type: "IPv4".into(),
        endpoints: Some(endpoints),
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![ownership::reference(service)]),
            ..ObjectMeta::default()
        },
        ports,
    }
}

fn ports_of(pod: &Pod, service: &Service) -> Vec<EndpointPort> {
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
    };
    service_ports(service).iter().filter_map(port).collect()
}

fn endpoint(pod: &Pod, service: &Service, zone: &dyn Fn(&str) -> Option<String>) -> Endpoint {
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = pods::is_ready(pod);
    let node = pods::node_of(pod);
    let zone = node.and_then(zone);
    Endpoint {
        addresses: address(pod).map(str::to_owned).into_iter().collect(),
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        hints: hints(service, node, zone.as_deref()),
        node_name: node.map(str::to_owned),
        target_ref: Some(reference(pod)),
        zone,
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, service};
    use super::*;
    use serde_json::json;

    #[test]
    fn ready_and_terminating_pods_are_told_apart() {
        let web = service(json!([{"port": 80, "targetPort": "http"}]));
        let mut leaving = (*member("c", "10.244.1.4", true)).clone();
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        let pods = [member("a", "10.244.1.2", true), member("b", "10.244.1.3", false), Rc::new(leaving)];
        let slices = desired(&web, &pods, &|_| None);
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));
        let conditions: Vec<_> = slices[0]
            .endpoints
            .iter()
            .flatten()
            .map(|one| one.conditions.clone().unwrap())
            .map(|one| (one.ready.unwrap(), one.serving.unwrap(), one.terminating.unwrap()))
            .collect();
        assert_eq!(conditions, [(true, true, false), (false, false, false), (false, true, true)]);
    }

    #[test]
    fn a_hundred_endpoints_fill_a_slice_and_nobody_makes_an_empty_one() {
        let web = service(json!([{"port": 80}]));
        let pods: Vec<Rc<Pod>> =
            (0..150).map(|n| member(&format!("p{n}"), &format!("10.244.1.{n}"), true)).collect();
        let sizes: Vec<usize> = desired(&web, &pods, &|_| None)
            .iter()
            .map(|slice| slice.endpoints.as_ref().unwrap().len())
            .collect();
        assert_eq!(sizes, [100, 50]);
        assert_eq!(desired(&web, &[], &|_| None)[0].endpoints.as_deref(), Some(&[][..]));
    }

    #[test]
    fn a_traffic_distribution_hints_at_the_endpoints_zone_or_node() {
        let mut web = service(json!([{"port": 80}]));
        let pods = [member("a", "10.244.1.2", true)];
        let zone = |node: &str| (node == "node-1").then(|| "a".to_owned());
        let first = |web: &Service| desired(web, &pods, &zone)[0].endpoints.clone().unwrap()[0].clone();
        assert_eq!((first(&web).zone.as_deref(), first(&web).hints), (Some("a"), None));
        web.spec.as_mut().unwrap().traffic_distribution = Some("PreferClose".into());
        assert_eq!(first(&web).hints.unwrap().for_zones.unwrap()[0].name, "a");
        web.spec.as_mut().unwrap().traffic_distribution = Some("PreferSameNode".into());
        assert_eq!(first(&web).hints.unwrap().for_nodes.unwrap()[0].name, "node-1");
    }
}
