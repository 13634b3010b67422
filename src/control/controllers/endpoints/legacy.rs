//! Endpoints of Services with a selector: the older, one-object form.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::{
    address, hostname, is_headless, members, publishes_not_ready, reference, selector, service_ports,
    services, target_port,
};
use crate::client::informer::split_key;
use crate::control::controllers::queue::Next;
use crate::control::controllers::workloads::pods;
use crate::control::controllers::world::{Actor, World};

const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const US: &str = "endpoint-controller";
/// Upstream cuts the list here.
const MOST: usize = 1000;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = services(world);
    let actor = world.actor("endpoint-controller", "endpoint-controller");
    let world = world.clone();
    Box::pin(async move {
        world.services.synced().await;
        world.pods.synced().await;
        world.endpoints.synced().await;
        queue.work("endpoints", 8, |key| sync(&world, &actor, key)).await;
    })
}

async fn sync(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let (namespace, name) = split_key(&key);
    let api: Api<Endpoints> = Api::namespaced(actor.client.clone(), namespace);
    let known = world.endpoints.get(&key);
    let Some(service) = world.services.get(&key) else {
        // They have no owner reference: the end of the service is their end.
        if known.is_some() {
            match api.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => other.map(drop)?,
            }
        }
        return Ok(Next::Done);
    };
    if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let subsets = subsets(&service, &members(world, &service));
    let labels = labels(&service);
    match known {
        Some(known)
            if known.subsets.as_deref().unwrap_or_default() == subsets
                && known.metadata.labels.as_ref() == Some(&labels) => {}
        Some(known) => {
            let mut changed = (*known).clone();
            changed.subsets = Some(subsets);
            changed.metadata.labels = Some(labels);
            world.endpoints.learn(api.replace(name, &PostParams::default(), &changed).await?);
        }
        None => {
            let mut made = Endpoints { subsets: Some(subsets), ..Endpoints::default() };
            made.metadata.name = Some(name.into());
            made.metadata.labels = Some(labels);
            world.endpoints.learn(api.create(&PostParams::default(), &made).await?);
        }
    }
    Ok(Next::Done)
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), US.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// Pods that share port numbers share a subset; those not ready are listed apart.
fn subsets(service: &Service, pods: &[Rc<Pod>]) -> Vec<EndpointSubset> {
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).take(MOST) {
        let ports: Vec<EndpointPort> = service_ports(service)
            .iter()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone().filter(|name| !name.is_empty()),
                    port: target_port(pod, port)?,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let subset = groups.entry(key).or_insert_with(|| EndpointSubset {
            ports: Some(ports).filter(|ports| !ports.is_empty()),
            ..EndpointSubset::default()
        });
        let ready = pods::is_ready(pod) || publishes_not_ready(service);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(EndpointAddress {
            hostname: hostname(pod, service),
            ip: address(pod).unwrap_or_default().to_owned(),
            node_name: pods::node_of(pod).map(str::to_owned),
            target_ref: Some(reference(pod)),
        });
    }
    let mut subsets: Vec<EndpointSubset> = groups.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses] {
            list.iter_mut().for_each(|list| list.sort_by(|a, b| a.ip.cmp(&b.ip)));
        }
    }
    subsets
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, service};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_ready_and_the_others_are_listed_apart() {
        let web = service(json!([{"name": "http", "port": 80, "targetPort": "http"}]));
        let subsets = subsets(&web, &[member("b", "10.244.1.3", false), member("a", "10.244.1.2", true)]);
        assert_eq!(subsets.len(), 1);
        let ips = |list: &Option<Vec<EndpointAddress>>| {
            list.iter().flatten().map(|one| one.ip.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ips(&subsets[0].addresses), ["10.244.1.2"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.244.1.3"]);
        assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
    }
}
