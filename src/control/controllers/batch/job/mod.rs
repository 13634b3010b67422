//! Job: pods that run until enough of them have succeeded (`pkg/controller/job`).
//!
//! Every pod carries a finalizer until its end has been counted, so that none is counted twice and none is
//! lost, whatever dies between:
//!
//! ```text
//!   pod ends ─► its uid in status.uncountedTerminatedPods ─► finalizer off ─► uid out, counter up
//! ```
//!
//! A verdict comes in two steps too: first SuccessCriteriaMet or FailureTarget, and Complete or Failed when
//! the last pod is gone and counted.

mod count;
mod failure;
mod indexes;
mod template;
mod verdict;

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::workloads::{ownership, pods};
use crate::control::controllers::world::{Actor, World};
use count::Tally;

/// Holds a pod until its end has been counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const MANAGER: &str = "kubernetes.io/job-controller";
/// At most this many pods are made in one go.
const BURST: usize = 500;
/// After a failure a new pod waits, twice as long each time.
const FIRST_BACKOFF: i64 = 10;
const LAST_BACKOFF: i64 = 600;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let (queue, orphans) = (Queue::default(), Queue::default());
    let (fed, lost, seen) = (queue.clone(), orphans.clone(), world.clone());
    world.late.jobs.on_change(move |old, new| match (old, new) {
        (_, Some(job)) => fed.add(key_of(&**job)),
        (Some(gone), None) => {
            let held = tracked_by(&seen, gone);
            held.iter().for_each(|pod| lost.add(key_of(&**pod)));
        }
        (None, None) => {}
    });
    let (fed, lost) = (queue.clone(), orphans.clone());
    world.pods.on_change(move |old, new| {
        let owners =
            old.into_iter().chain(new).filter_map(|pod| ownership::controller_key(&pod.metadata, "Job"));
        owners.for_each(|key| fed.add(key));
        if let Some(pod) = new.filter(|pod| is_tracked(pod)) {
            lost.add(key_of(&**pod));
        }
    });
    let actor = world.actor("job-controller", "job-controller");
    let world = world.clone();
    Box::pin(async move {
        world.late.jobs.synced().await;
        world.pods.synced().await;
        let released = orphans.work("job-orphans", 4, |key| free_orphan(&world, &actor, key));
        tokio::join!(queue.work("job", 5, |key| sync(&world, &actor, key)), released);
    })
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|one| one == TRACKING)
}

fn tracked_by(world: &World, job: &Job) -> Vec<Rc<Pod>> {
    let mut all = owned(world, job);
    all.retain(|pod| is_tracked(pod));
    all
}

fn owned(world: &World, job: &Job) -> Vec<Rc<Pod>> {
    let mut all = world.pods.in_namespace(job.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|pod| ownership::is_controlled_by(&pod.metadata, job.metadata.uid.as_deref()));
    all
}

/// Nobody counts the end of a pod whose Job is gone.
async fn free_orphan(world: &World, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(pod) = world.pods.get(&key).filter(|pod| is_tracked(pod)) else { return Ok(Next::Done) };
    let job = ownership::controller_key(&pod.metadata, "Job").and_then(|key| world.late.jobs.get(&key));
    let uid = job.as_ref().and_then(|job| job.metadata.uid.as_deref());
    if !ownership::is_controlled_by(&pod.metadata, uid) {
        free(world, actor, &pod).await?;
    }
    Ok(Next::Done)
}

/// Takes the finalizer off.
async fn free(world: &World, actor: &Actor, pod: &Pod) -> Result<(), kube::Error> {
    let (namespace, name) = pods::place(pod);
    let api: Api<Pod> = Api::namespaced(actor.client.clone(), namespace);
    let patch =
        json!({"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        // A pod that only waited for this is gone now; the watch says so.
        Ok(left) if left.metadata.deletion_timestamp.is_none() => world.pods.learn(left),
        Ok(_) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn sync(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(job) = world.late.jobs.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &job.spec else { return Ok(Next::Done) };
    if spec.managed_by.as_deref().is_some_and(|other| other != MANAGER) {
        return Ok(Next::Done);
    }
    let old = job.status.clone().unwrap_or_default();
    if verdict::is_finished(&old) {
        let held = tracked_by(world, &job);
        let freed = join_all(held.iter().map(|pod| free(world, actor, pod))).await;
        return freed.into_iter().collect::<Result<Vec<()>, _>>().map(|_| Next::Done);
    }
    if let Some(selector) = &spec.selector {
        ownership::claim(&actor.client, &world.pods, &*job, selector).await?;
    }
    let mine = owned(world, &job);
    let now = Timestamp::now();
    let mut tally = count::of(&job, &mine);
    let resumed = verdict::suspension(&mut tally.status, spec, now);
    if let Some(word) = resumed {
        actor.normal(&*job, word, &format!("Job {}", word.to_lowercase()));
    }
    let judged = verdict::judge(&job, &mine, &mut tally, now);
    let outcome = act(world, actor, &job, &mut tally, judged, now).await;
    settle(world, actor, &job, &mut tally, now);
    let written = write_status(world, actor, &job, tally.status.clone()).await?;
    if written {
        let freed = join_all(tally.counted.iter().map(|pod| free(world, actor, pod))).await;
        freed.into_iter().collect::<Result<Vec<()>, _>>()?;
    }
    let wait = outcome?;
    Ok(verdict::deadline(&job, now).into_iter().chain(wait).min().map_or(Next::Done, Next::After))
}

/// Makes and deletes pods; answers how long a failure keeps the next one waiting.
async fn act(
    world: &Rc<World>,
    actor: &Actor,
    job: &Rc<Job>,
    tally: &mut Tally,
    judged: bool,
    now: Timestamp,
) -> Result<Option<Duration>, kube::Error> {
    let spec = job.spec.clone().unwrap_or_default();
    if job.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    if judged || spec.suspend == Some(true) {
        let failed = verdict::failing(&tally.status);
        let leaving = std::mem::take(&mut tally.active);
        // Those that a failure takes along have failed with it.
        if failed {
            let more = i32::try_from(leaving.len()).unwrap_or(0);
            tally.status.failed = Some(tally.status.failed.unwrap_or(0) + more);
        }
        dismiss(world, actor, job, &leaving).await?;
        return Ok(None);
    }
    let wanted = wanted(&spec, tally);
    if tally.active.len() > wanted {
        tally.active.sort_by_key(|pod| (pods::is_ready(pod), pod.metadata.creation_timestamp.clone()));
        let surplus: Vec<Rc<Pod>> = tally.active.drain(..tally.active.len() - wanted).collect();
        dismiss(world, actor, job, &surplus).await?;
        return Ok(None);
    }
    let occupied = tally.active.len() + if only_failed(&spec) { tally.terminating } else { 0 };
    let missing = wanted.saturating_sub(occupied).min(BURST);
    if missing == 0 {
        return Ok(None);
    }
    if let Some(wait) = backoff(tally, now) {
        return Ok(Some(wait));
    }
    let new = template::pods(job, tally, missing);
    let outcome = pods::create_many(world, actor, &**job, &new).await;
    tally.look_again(&owned(world, job));
    outcome.map(|()| None)
}

/// Whether a pod is replaced only when it has failed, not while it ends.
fn only_failed(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

/// How many pods should run now.
fn wanted(spec: &JobSpec, tally: &Tally) -> usize {
    let parallel = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    match spec.completions {
        // One that has succeeded ends it: no new ones then.
        None if tally.succeeded() > 0 => tally.active.len().min(parallel),
        None => parallel,
        Some(completions) => {
            let done = tally.succeeded() + tally.failed_indexes.len();
            parallel.min(usize::try_from(completions).unwrap_or(0).saturating_sub(done))
        }
    }
}

/// Pods that end by our will, not their own: not counted.
async fn dismiss(
    world: &Rc<World>,
    actor: &Actor,
    job: &Rc<Job>,
    leaving: &[Rc<Pod>],
) -> Result<(), kube::Error> {
    let one = |pod: Rc<Pod>| async move {
        free(world, actor, &pod).await?;
        pods::delete(world, actor, &**job, &pod).await
    };
    join_all(leaving.iter().cloned().map(one)).await.into_iter().collect::<Result<Vec<()>, _>>().map(drop)
}

/// How long the next pod still waits for the failures since the last success.
fn backoff(tally: &Tally, now: Timestamp) -> Option<Duration> {
    let (failures, last) = tally.recent_failures?;
    let doubled = FIRST_BACKOFF << u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(10);
    let left = doubled.min(LAST_BACKOFF) - (now.as_second() - last.as_second());
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
}

/// What can be said of the pods as they are now, and the last word when all of them are counted.
fn settle(world: &World, actor: &Actor, job: &Job, tally: &mut Tally, now: Timestamp) {
    let number = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let ready = tally.active.iter().filter(|pod| pods::is_ready(pod)).count();
    let now_mine = owned(world, job);
    tally.terminating = now_mine.iter().filter(|pod| count::is_leaving(pod)).count();
    let status = &mut tally.status;
    status.active = number(tally.active.len()).filter(|count| *count > 0);
    status.ready = number(ready);
    status.terminating = number(tally.terminating);
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let open = uncounted.failed.iter().chain(&uncounted.succeeded).any(|list| !list.is_empty());
    let held = now_mine.iter().any(|pod| is_tracked(pod));
    if tally.active.is_empty() && tally.terminating == 0 && !open && !held {
        match verdict::conclude(status, now) {
            Some(("Complete", _, _)) => actor.normal(job, "Completed", "Job completed"),
            Some((_, reason, message)) => actor.warning(job, &reason, &message),
            None => {}
        }
    }
}

/// Answers whether what was counted is on disk.
async fn write_status(
    world: &World,
    actor: &Actor,
    job: &Job,
    status: JobStatus,
) -> Result<bool, kube::Error> {
    if job.status.as_ref() == Some(&status) {
        return Ok(true);
    }
    let mut changed = job.clone();
    changed.status = Some(status);
    let api: Api<Job> =
        Api::namespaced(actor.client.clone(), job.metadata.namespace.as_deref().unwrap_or_default());
    let name = job.metadata.name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), &changed).await {
        Ok(written) => world.late.jobs.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
        Err(error) => return Err(error),
    }
    Ok(true)
}

fn time(at: Timestamp) -> Option<Time> {
    Some(Time(Timestamp::from_second(at.as_second()).unwrap_or(at)))
}
