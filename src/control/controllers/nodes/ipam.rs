//! Node IPAM: gives each node its share of the cluster's pod addresses (the range allocator).
//!
//! Shares in use are read from the nodes themselves, so nothing is lost with the process. Where
//! upstream hands out the next free share, a node called `x-7` gets the seventh when it is free:
//! addresses then tell which node they belong to. IPv4 only.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::{info, warn};

use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.nodes.on_change(move |_, new| {
        if let Some(node) = new.filter(|node| pod_cidr(node).is_none()) {
            fed.add(key_of(&**node));
        }
    });
    let actor = world.actor("node-controller", "cidrAllocator");
    let world = world.clone();
    Box::pin(async move {
        let Some(cluster) = world.options.cluster_cidr.filter(|_| world.options.allocate_node_cidrs) else {
            return;
        };
        world.nodes.synced().await;
        // One at a time: two nodes never look at the same free share.
        queue.work("node-ipam", 1, |name| allocate(&world, &actor, cluster, name)).await;
    })
}

fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()
}

/// The share for a node of this name, given those in use; `None` when all are taken.
fn choose(cluster: Ipv4Net, mask: u8, name: &str, used: &HashSet<Ipv4Addr>) -> Option<Ipv4Net> {
    let shares = 1_u32.checked_shl(u32::from(mask.checked_sub(cluster.prefix_len())?))?;
    let size = 1_u32.checked_shl(32 - u32::from(mask))?;
    let share =
        |index: u32| Ipv4Addr::from(u32::from(cluster.network()).wrapping_add(index.wrapping_mul(size)));
    let number: Option<u32> = name.rsplit('-').next().and_then(|last| last.parse().ok());
    let preferred = number.filter(|number| *number < shares);
    let network =
        preferred.into_iter().chain(1..shares).chain(0..1).map(share).find(|net| !used.contains(net))?;
    Ipv4Net::new(network, mask).ok()
}

async fn allocate(world: &World, actor: &Actor, cluster: Ipv4Net, name: String) -> Result<Next, kube::Error> {
    let Some(node) = world.nodes.get(&name).filter(|node| pod_cidr(node).is_none()) else {
        return Ok(Next::Done);
    };
    let used =
        world.nodes.all().iter().filter_map(|node| pod_cidr(node)).map(|cidr| cidr.network()).collect();
    let Some(cidr) = choose(cluster, world.options.node_mask(), &name, &used) else {
        warn!(node = name, "no free share of the cluster CIDR");
        actor.normal(&*node, "CIDRNotAvailable", &format!("Node {name} status is now: CIDRNotAvailable"));
        return Ok(Next::Soon);
    };
    let text = cidr.to_string();
    let patch =
        json!({"spec": {"podCIDR": text, "podCIDRs": [text]}, "metadata": {"uid": node.metadata.uid}});
    let api: Api<Node> = Api::all(actor.client.clone());
    let node = api.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    world.nodes.learn(node);
    info!(node = name, cidr = text, "set node PodCIDR");
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Ipv4Net {
        "10.244.0.0/16".parse().unwrap()
    }

    fn used(list: &[&str]) -> HashSet<Ipv4Addr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_numbered_node_gets_its_number_when_it_is_free() {
        let free = used(&[]);
        assert_eq!(choose(cluster(), 24, "node-1", &free).unwrap().to_string(), "10.244.1.0/24");
        assert_eq!(choose(cluster(), 24, "node-200", &free).unwrap().to_string(), "10.244.200.0/24");
        let taken = used(&["10.244.1.0"]);
        assert_eq!(choose(cluster(), 24, "node-1", &taken).unwrap().to_string(), "10.244.2.0/24");
    }

    #[test]
    fn no_share_is_given_twice_and_the_last_one_is_used() {
        let cluster: Ipv4Net = "10.0.0.0/30".parse().unwrap();
        let mut given = HashSet::new();
        for name in ["a", "b", "c-9", "d"] {
            assert!(given.insert(choose(cluster, 32, name, &given).unwrap().network()));
        }
        assert_eq!(choose(cluster, 32, "e", &given), None);
    }
}
