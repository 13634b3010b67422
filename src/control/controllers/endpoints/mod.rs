//! Which pods stand behind a Service: as EndpointSlices, which kube-proxy reads, and as Endpoints, which
//! people and old programs read.
//!
//! Left out: IPv6, and hints by share of a zone's CPUs (`trafficDistribution` gives hints).

pub mod legacy;
pub mod mirror;
mod reconcile;
pub mod slices;
mod trigger;

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::queue::Queue;
use super::workloads::pods;
use super::world::World;
use crate::client::informer::key_of;

/// A queue fed with every service that changes, or whose pods do.
fn services(world: &Rc<World>) -> Queue {
    let queue = Queue::default();
    let fed = queue.clone();
    world.services.on_change(move |old, new| {
        if let Some(service) = new.or(old) {
            fed.add(key_of(&**service));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        if old.map(|pod| face(pod)) == new.map(|pod| face(pod)) {
            return;
        }
        let Some(namespace) = new.or(old).and_then(|pod| pod.metadata.namespace.clone()) else { return };
        for service in seen.services.in_namespace(&namespace) {
            if old.into_iter().chain(new).any(|pod| selects(&service, pod)) {
                fed.add(key_of(&*service));
            }
        }
    });
    queue
}

/// What of a pod endpoints show.
fn face(pod: &Pod) -> impl PartialEq + use<> {
    (
        pod.metadata.labels.clone(),
        address(pod).map(str::to_owned),
        pods::is_ready(pod),
        pods::is_finished(pod),
        pod.metadata.deletion_timestamp.is_some(),
        pods::node_of(pod).map(str::to_owned),
    )
}

fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

fn selects(service: &Service, pod: &Pod) -> bool {
    let Some(selector) = selector(service) else { return false };
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// The pods a service's endpoints list: with an address and not finished.
fn members(world: &World, service: &Service) -> Vec<Rc<Pod>> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut all = world.pods.in_namespace(namespace);
    all.retain(|pod| selects(service, pod) && address(pod).is_some() && !pods::is_finished(pod));
    all
}

fn service_ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

/// The port of a pod that a service port means; a named one may be missing.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match port.target_port.as_ref() {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|one| one.restart_policy.as_deref() == Some("Always"));
            let ports =
                spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let fits = |one: &&k8s_openapi::api::core::v1::ContainerPort| {
                one.name.as_deref() == Some(name) && one.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            ports.into_iter().find(fits).map(|one| one.container_port)
        }
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The hostname DNS gives a pod of a headless service.
fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let same = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.clone().filter(|name| same && !name.is_empty())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub fn service(ports: Value) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "s", "labels": {"app": "web"}},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.7", "ports": ports},
        }))
        .unwrap()
    }

    pub fn member(name: &str, ip: &str, ready: bool) -> Rc<Pod> {
        let value = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip,
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        Rc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn ports_are_numbers_or_names_of_the_pods_ports() {
        let ports = json!([{"port": 80}, {"port": 80, "targetPort": 9}, {"port": 80, "targetPort": "http"},
            {"port": 80, "targetPort": "none"}]);
        let service = service(ports);
        let pod = member("a", "10.244.1.2", true);
        let targets: Vec<Option<i32>> =
            service_ports(&service).iter().map(|port| target_port(&pod, port)).collect();
        assert_eq!(targets, [Some(80), Some(9), Some(8080), None]);
    }

    #[test]
    fn a_service_without_a_selector_selects_nothing() {
        let mut service = service(json!([]));
        let pod = member("a", "10.244.1.2", true);
        assert!(selects(&service, &pod));
        service.spec.as_mut().unwrap().selector = Some(BTreeMap::new());
        assert!(!selects(&service, &pod));
    }
}
