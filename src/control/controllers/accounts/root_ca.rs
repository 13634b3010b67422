//! Publishes the cluster's CA as ConfigMap `kube-root-ca.crt` in every namespace, and puts it back when changed.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use tracing::warn;

use super::default::is_active;
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

const NAME: &str = "kube-root-ca.crt";
/// Upstream says the same in every namespace.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            fed.add(key_of(&**namespace));
        }
    });
    let fed = queue.clone();
    world.root_cas.on_change(move |old, new| {
        if let Some(changed) = new.or(old) {
            fed.add(changed.metadata.namespace.clone().unwrap_or_default());
        }
    });
    let actor = world.actor("root-ca-cert-publisher", "root-ca-cert-publisher");
    let world = world.clone();
    Box::pin(async move {
        let Some(path) = &world.options.root_ca_file else { return };
        let bundle = match std::fs::read_to_string(path) {
            Ok(bundle) => bundle,
            Err(error) => return warn!(path = %path.display(), %error, "read the root CA file"),
        };
        world.root_cas.synced().await;
        queue
            .work("root-ca-cert-publisher", 8, |namespace| publish(&world, &actor, &bundle, namespace))
            .await;
    })
}

async fn publish(world: &World, actor: &Actor, bundle: &str, namespace: String) -> Result<Next, kube::Error> {
    if !world.namespaces.get(&namespace).is_some_and(|namespace| is_active(&namespace)) {
        return Ok(Next::Done);
    }
    let data = Some(BTreeMap::from([("ca.crt".to_owned(), bundle.to_owned())]));
    let api: Api<ConfigMap> = Api::namespaced(actor.client.clone(), &namespace);
    let outcome = match world.root_cas.get(&format!("{namespace}/{NAME}")) {
        Some(known) if known.data == data => return Ok(Next::Done),
        Some(known) => {
            let mut restored = (*known).clone();
            restored.data = data;
            api.replace(NAME, &PostParams::default(), &restored).await
        }
        None => {
            let mut published = ConfigMap { data, ..ConfigMap::default() };
            published.metadata.name = Some(NAME.into());
            published.metadata.annotations =
                Some(BTreeMap::from([("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned())]));
            api.create(&PostParams::default(), &published).await
        }
    };
    match outcome {
        Ok(published) => world.root_cas.learn(published),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" || status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(Next::Done)
}
