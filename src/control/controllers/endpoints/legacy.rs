//! Endpoints of Services with a selector: the older, one-object form.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::trigger::{self, Triggers};
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
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
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
        let triggers = Triggers::default();
        queue.work("endpoints", 8, |key| sync(&world, &actor, &triggers, key)).await;
    })
}

async fn sync(world: &World, actor: &Actor, triggers: &Triggers, key: String) -> Result<Next, kube::Error> {
    let (namespace, name) = split_key(&key);
    let api: Api<Endpoints> = Api::namespaced(actor.client.clone(), namespace);
    let known = world.endpoints.get(&key);
    let Some(service) = world.services.get(&key) else {
        triggers.forget(&key);
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
    let pods = members(world, &service);
    let (subsets, cut) = subsets(&service, &pods);
    let mut wanted = known.as_deref().cloned().unwrap_or_default();
    wanted.subsets = Some(subsets);
    wanted.metadata.labels = Some(labels(&service));
    over_capacity(&mut wanted.metadata.annotations, cut);
    let trigger = triggers.first_change(&key, &service, &pods);
    match known {
        Some(known) if same(&known, &wanted) => {}
        Some(_) => {
            trigger::annotate(&mut wanted.metadata.annotations, trigger.as_deref());
            world.endpoints.learn(api.replace(name, &PostParams::default(), &wanted).await?);
        }
        None => {
            trigger::annotate(&mut wanted.metadata.annotations, trigger.as_deref());
            wanted.metadata.name = Some(name.into());
            world.endpoints.learn(api.create(&PostParams::default(), &wanted).await?);
        }
    }
    Ok(Next::Done)
}

fn same(a: &Endpoints, b: &Endpoints) -> bool {
    a.subsets.as_deref().unwrap_or_default() == b.subsets.as_deref().unwrap_or_default()
        && a.metadata.labels == b.metadata.labels
        && a.metadata.annotations == b.metadata.annotations
}

/// Says on the object that its list was cut, or no longer is.
fn over_capacity(notes: &mut Option<BTreeMap<String, String>>, cut: bool) {
    match (cut, notes) {
        (true, notes) => drop(notes.get_or_insert_default().insert(OVER_CAPACITY.into(), "truncated".into())),
        (false, Some(notes)) => drop(notes.remove(OVER_CAPACITY)),
        (false, None) => {}
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), US.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// Pods that share port numbers share a subset; those not ready are listed apart, and are the first to go
/// where there are too many, which is said as well.
fn subsets(service: &Service, pods: &[Rc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let mut pods: Vec<&Rc<Pod>> =
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    let cut = pods.len() > MOST;
    if cut {
        pods.sort_by_key(|pod| !(pods::is_ready(pod) || publishes_not_ready(service)));
    }
    for pod in pods.into_iter().take(MOST) {
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
    (subsets, cut)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, service};
    use super::*;
    use serde_json::json;

    #[test]
    fn the_ready_and_the_others_are_listed_apart() {
        let web = service(json!([{"name": "http", "port": 80, "targetPort": "http"}]));
        let pods = [member("b", "10.244.1.3", false), member("a", "10.244.1.2", true)];
        let (subsets, cut) = subsets(&web, &pods);
        assert!(!cut);
        assert_eq!(subsets.len(), 1);
        let ips = |list: &Option<Vec<EndpointAddress>>| {
            list.iter().flatten().map(|one| one.ip.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ips(&subsets[0].addresses), ["10.244.1.2"]);
        assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.244.1.3"]);
        assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
    }

    #[test]
    fn too_many_are_cut_from_those_not_ready_and_the_object_says_so() {
        let web = service(json!([{"port": 80}]));
        let mut pods = vec![member("lame", "10.244.0.1", false)];
        pods.extend(
            (0..MOST).map(|n| member(&format!("p{n}"), &format!("10.244.{}.{}", n / 250, n % 250 + 2), true)),
        );
        let (subsets, cut) = subsets(&web, &pods);
        assert!(cut && subsets[0].not_ready_addresses.is_none());
        assert_eq!(subsets[0].addresses.as_ref().map(Vec::len), Some(MOST));
        let mut notes = None;
        over_capacity(&mut notes, true);
        assert_eq!(notes.as_ref().unwrap()[OVER_CAPACITY], "truncated");
        over_capacity(&mut notes, false);
        assert_eq!(notes, Some(BTreeMap::new()));
    }
}
