//! The route controller: what a cloud provider's would be, with the lab's supervisor as the cloud.
//!
//! Over an inherited socket it writes the whole desired set of routes each time it changes, one JSON
//! line; the cloud sets them on the routers and answers each line. A node's `NetworkUnavailable`
//! condition says what came of it, in upstream's words. Without the socket there is no cloud and
//! nothing to do.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tracing::{debug, info, warn};

use super::{condition, internal_ip};
use crate::control::controllers::ControllersError;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

/// The environment variable that names the inherited socket.
const SOCKET: &str = "MINILAB_CLOUD_FD";

/// One route: this node's pods are reached through this address.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Route {
    node: String,
    cidr: String,
    via: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer {
    Failed { error: String },
    Done {},
}

/// The cloud at the other end of the socket.
struct Cloud {
    stream: BufReader<UnixStream>,
    /// What it last said yes to.
    set: Option<Vec<Route>>,
}

impl Cloud {
    fn inherited() -> Result<Option<Self>, ControllersError> {
        let Some(fd) = crate::sys::inherit::descriptor(SOCKET) else { return Ok(None) };
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true).map_err(ControllersError::Cloud)?;
        let stream = UnixStream::from_std(stream).map_err(ControllersError::Cloud)?;
        Ok(Some(Self { stream: BufReader::new(stream), set: None }))
    }

    async fn set(&mut self, routes: &[Route]) -> Result<(), ControllersError> {
        if self.set.as_deref() == Some(routes) {
            return Ok(());
        }
        self.set = None;
        let mut line = json!({ "routes": routes }).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).await.map_err(ControllersError::Cloud)?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer).await.map_err(ControllersError::Cloud)?;
        match serde_json::from_str(&answer).map_err(ControllersError::CloudAnswer)? {
            Answer::Failed { error } => Err(ControllersError::Route(error)),
            Answer::Done {} => {
                self.set = Some(routes.to_vec());
                Ok(())
            }
        }
    }
}

/// The routes a cluster of these nodes needs.
fn desired<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<Route> {
    let route = |node: &Node| {
        let cidr = node.spec.as_ref()?.pod_cidr.clone()?;
        Some(Route { node: node.metadata.name.clone()?, cidr, via: internal_ip(node)?.to_owned() })
    };
    nodes.into_iter().filter_map(route).collect()
}

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.nodes.on_change(move |old, new| {
        let routed = |node: Option<&Rc<Node>>| desired(node.map(|node| &**node));
        let marked = |node: &Rc<Node>| condition(node, "NetworkUnavailable").is_some();
        if routed(old) != routed(new) || new.is_some_and(|node| !marked(node)) {
            fed.add("routes");
        }
    });
    let actor = world.actor("route-controller", "route_controller");
    let world = world.clone();
    Box::pin(async move {
        if !world.options.configure_cloud_routes {
            return;
        }
        let cloud = match Cloud::inherited() {
            Ok(Some(cloud)) => tokio::sync::Mutex::new(cloud),
            Ok(None) => return debug!("no cloud to configure routes in"),
            Err(error) => return warn!(%error, "open the cloud's socket"),
        };
        world.nodes.synced().await;
        queue.work("node-route", 1, |_| reconcile(&world, &actor, &cloud)).await;
    })
}

async fn reconcile(
    world: &World,
    actor: &Actor,
    cloud: &tokio::sync::Mutex<Cloud>,
) -> Result<Next, ControllersError> {
    let nodes = world.nodes.all();
    let routes = desired(nodes.iter().map(|node| &**node));
    let outcome = cloud.lock().await.set(&routes).await;
    match &outcome {
        Ok(()) => info!(routes = routes.len(), "routes set"),
        Err(error) => warn!(%error, "set routes"),
    }
    for node in nodes
        .iter()
        .filter(|node| routes.iter().any(|route| Some(&route.node) == node.metadata.name.as_ref()))
    {
        mark(world, actor, node, outcome.is_ok()).await?;
    }
    outcome.map(|()| Next::Done)
}

/// Says in the node's status whether its pods can be reached.
async fn mark(world: &World, actor: &Actor, node: &Node, created: bool) -> Result<(), ControllersError> {
    let (status, reason, message) = match created {
        true => ("False", "RouteCreated", "RouteController created a route"),
        false => ("True", "NoRouteCreated", "RouteController failed to create a route"),
    };
    if condition(node, "NetworkUnavailable").is_some_and(|known| known.status == status) {
        return Ok(());
    }
    let now = Time(Timestamp::now());
    let patch = json!({"status": {"conditions": [{
        "type": "NetworkUnavailable", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    }]}});
    let api: Api<Node> = Api::all(actor.client.clone());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let node = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    world.nodes.learn(node);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cidr: Option<&str>, ip: Option<&str>) -> Node {
        let addresses: Vec<_> = ip.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"podCIDR": cidr}, "status": {"addresses": addresses},
        }))
        .unwrap()
    }

    #[test]
    fn only_nodes_with_a_share_and_an_address_are_routed() {
        let nodes = [
            node("node-1", Some("10.244.1.0/24"), Some("192.0.2.11")),
            node("node-2", None, Some("192.0.2.12")),
            node("node-3", Some("10.244.3.0/24"), None),
        ];
        let routes = desired(&nodes);
        assert_eq!(routes.len(), 1);
        assert_eq!((routes[0].cidr.as_str(), routes[0].via.as_str()), ("10.244.1.0/24", "192.0.2.11"));
    }

    #[tokio::test]
    async fn the_cloud_is_told_each_set_once_and_again_after_it_failed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut cloud = Cloud { stream: BufReader::new(ours), set: None };
        let served = tokio::spawn(async move {
            let mut stream = BufReader::new(theirs);
            let mut lines = Vec::new();
            for answer in ["{\"error\":\"no such device\"}\n", "{\"ok\":true}\n"] {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                lines.push(line);
                stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            }
            lines
        });
        let routes = desired(&[node("node-1", Some("10.244.1.0/24"), Some("192.0.2.11"))]);
        assert_eq!(
            cloud.set(&routes).await.unwrap_err().to_string(),
            "the cloud refused a route: no such device"
        );
        cloud.set(&routes).await.unwrap();
        cloud.set(&routes).await.unwrap();
        let lines = served.await.unwrap();
        let wanted =
            "{\"routes\":[{\"cidr\":\"10.244.1.0/24\",\"node\":\"node-1\",\"via\":\"192.0.2.11\"}]}\n";
        assert_eq!(lines, [wanted, wanted]);
    }
}
