//! TTL after finished: ended Jobs that ask for it are deleted when their time is over.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::cron::outcome;
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::world::{Actor, World};

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.late.jobs.on_change(move |_, new| {
        if let Some(job) = new.filter(|job| left(job, Timestamp::now()).is_some()) {
            fed.add(key_of(&**job));
        }
    });
    let actor = world.actor("ttl-after-finished-controller", "ttl-after-finished-controller");
    let world = world.clone();
    Box::pin(async move {
        world.late.jobs.synced().await;
        queue.work("ttl-after-finished", 5, |key| sync(&world, &actor, key)).await;
    })
}

/// How long an ended Job still has.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let limit = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let (_, ended) = outcome(job)?;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let left = i64::from(limit) - (now.as_second() - ended.as_second());
    Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

async fn sync(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(job) = world.late.jobs.get(&key) else { return Ok(Next::Done) };
    let Some(left) = left(&job, Timestamp::now()) else { return Ok(Next::Done) };
    if !left.is_zero() {
        return Ok(Next::After(left));
    }
    let api: Api<Job> =
        Api::namespaced(actor.client.clone(), job.metadata.namespace.as_deref().unwrap_or_default());
    let only_this = Preconditions { uid: job.metadata.uid.clone(), resource_version: None };
    let how = DeleteParams { preconditions: Some(only_this), ..DeleteParams::foreground() };
    match api.delete(job.metadata.name.as_deref().unwrap_or_default(), &how).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Next::Done),
        other => other.map(|_| Next::Done),
    }
}
