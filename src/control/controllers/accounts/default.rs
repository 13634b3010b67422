//! Every namespace has a service account `default`.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Api;
use kube::api::PostParams;

use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

const NAME: &str = "default";

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.namespaces.on_change(move |_, new| {
        if let Some(namespace) = new {
            fed.add(key_of(&**namespace));
        }
    });
    let fed = queue.clone();
    world.service_accounts.on_change(move |old, new| {
        if let (Some(gone), None) = (old, new) {
            fed.add(gone.metadata.namespace.clone().unwrap_or_default());
        }
    });
    let actor = world.actor("service-account-controller", "service-account-controller");
    let world = world.clone();
    Box::pin(async move {
        world.service_accounts.synced().await;
        queue.work("serviceaccount", 8, |namespace| sync(&world, &actor, namespace)).await;
    })
}

/// Whether new objects may still be made in a namespace.
pub fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

async fn sync(world: &World, actor: &Actor, namespace: String) -> Result<Next, kube::Error> {
    let wanted = world.namespaces.get(&namespace).is_some_and(|namespace| is_active(&namespace));
    if !wanted || world.service_accounts.get(&format!("{namespace}/{NAME}")).is_some() {
        return Ok(Next::Done);
    }
    let mut account = ServiceAccount::default();
    account.metadata.name = Some(NAME.into());
    let api: Api<ServiceAccount> = Api::namespaced(actor.client.clone(), &namespace);
    match api.create(&PostParams::default(), &account).await {
        Ok(made) => world.service_accounts.learn(made),
        // Made by somebody else, or the namespace went meanwhile.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" || status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(Next::Done)
}
