//! ReplicationController: what ReplicaSets were before selectors had expressions.

use std::collections::HashMap;
use std::rc::Rc;

use futures_util::future::{LocalBoxFuture, join_all};
use k8s_openapi::api::core::v1::{Pod, ReplicationController, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;

use super::replicaset::surplus_pods;
use super::{ownership, pods};
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

const KIND: &str = "ReplicationController";
const BURST: usize = 500;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.late.replication_controllers.on_change(move |_, new| {
        if let Some(one) = new {
            fed.add(key_of(&**one));
        }
    });
    let (fed, seen) = (queue.clone(), world.clone());
    world.pods.on_change(move |old, new| {
        let both = old.into_iter().chain(new);
        both.filter_map(|pod| ownership::controller_key(&pod.metadata, KIND)).for_each(|key| fed.add(key));
        if let Some(orphan) = new.filter(|pod| ownership::controller_of(&pod.metadata).is_none()) {
            let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
            let all = seen.late.replication_controllers.in_namespace(namespace);
            all.iter().for_each(|one| fed.add(key_of(&**one)));
        }
    });
    let actor = world.actor("replication-controller", "replication-controller");
    let world = world.clone();
    Box::pin(async move {
        world.late.replication_controllers.synced().await;
        world.pods.synced().await;
        queue.work("replicationcontroller", 4, |key| sync(&world, &actor, key)).await;
    })
}

fn owned(world: &World, one: &ReplicationController) -> Vec<Rc<Pod>> {
    let mut all = world.pods.in_namespace(one.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| ownership::is_controlled_by(&pod.metadata, one.metadata.uid.as_deref()));
    all
}

async fn sync(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(one) = world.late.replication_controllers.get(&key) else { return Ok(Next::Done) };
    let spec = one.spec.clone().unwrap_or_default();
    let selector = LabelSelector { match_labels: spec.selector.clone(), match_expressions: None };
    ownership::claim(&actor.client, &world.pods, &*one, &selector).await?;
    let mut outcome = Ok(());
    if one.metadata.deletion_timestamp.is_none() {
        let active: Vec<Rc<Pod>> =
            owned(world, &one).into_iter().filter(|pod| pods::is_active(pod)).collect();
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        outcome = if active.len() < wanted {
            let namespace = one.metadata.namespace.as_deref().unwrap_or_default();
            let template = spec.template.clone().unwrap_or_default();
            let pod = pods::from_template(&template, namespace, ownership::reference(&*one));
            pods::create_many(world, actor, &*one, &vec![pod; (wanted - active.len()).min(BURST)]).await
        } else {
            let surplus = surplus_pods(&active, (active.len() - wanted).min(BURST), &HashMap::new());
            let gone = join_all(surplus.iter().map(|pod| pods::delete(world, actor, &*one, pod))).await;
            gone.into_iter().collect::<Result<Vec<()>, _>>().map(drop)
        };
    }
    let mine = owned(world, &one);
    write_status(world, actor, &one, status(&one, &mine)).await?;
    outcome?;
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let waits = mine.iter().filter_map(|pod| pods::available_in(pod, min_ready, Timestamp::now()));
    Ok(waits.filter(|wait| !wait.is_zero()).min().map_or(Next::Done, Next::After))
}

fn status(one: &ReplicationController, mine: &[Rc<Pod>]) -> ReplicationControllerStatus {
    let spec = one.spec.clone().unwrap_or_default();
    let count = |fits: &dyn Fn(&Pod) -> bool| {
        let fitting = mine.iter().filter(|pod| pods::is_active(pod) && fits(pod)).count();
        i32::try_from(fitting).unwrap_or(i32::MAX)
    };
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    let labels = spec.template.and_then(|own| own.metadata).and_then(|own| own.labels).unwrap_or_default();
    let labeled = |pod: &Pod| {
        let own = pod.metadata.labels.clone().unwrap_or_default();
        labels.iter().all(|(key, value)| own.get(key) == Some(value))
    };
    let (min_ready, now) = (spec.min_ready_seconds.unwrap_or(0), Timestamp::now());
    ReplicationControllerStatus {
        replicas: count(&|_| true),
        fully_labeled_replicas: some(count(&labeled)),
        ready_replicas: some(count(&pods::is_ready)),
        available_replicas: some(count(&|pod| pods::is_available(pod, min_ready, now))),
        observed_generation: one.metadata.generation,
        conditions: one.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

async fn write_status(
    world: &World,
    actor: &Actor,
    one: &ReplicationController,
    status: ReplicationControllerStatus,
) -> Result<(), kube::Error> {
    if one.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let mut changed = one.clone();
    changed.status = Some(status);
    let api: Api<ReplicationController> =
        Api::namespaced(actor.client.clone(), one.metadata.namespace.as_deref().unwrap_or_default());
    match api
        .replace_status(one.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), &changed)
        .await
    {
        Ok(written) => world.late.replication_controllers.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
