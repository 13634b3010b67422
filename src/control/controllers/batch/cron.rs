//! CronJob: makes a Job when its schedule says so, and clears the old ones away (`pkg/controller/cronjob`).

use std::cmp::Reverse;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use tracing::warn;

use crate::api::cron::Schedule;
use crate::client::informer::key_of;
use crate::control::controllers::queue::{Next, Queue};
use crate::control::controllers::workloads::{ownership, pods};
use crate::control::controllers::world::{Actor, World};
use crate::sys::zone;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// So many missed times are taken for a clock gone wrong, and said.
const MANY_MISSED: usize = 100;
/// A schedule every minute that slept for a year has more; none is counted beyond.
const MOST_MISSED: usize = 100_000;

pub fn start(world: &Rc<World>) -> LocalBoxFuture<'static, ()> {
    let queue = Queue::default();
    let fed = queue.clone();
    world.late.cron_jobs.on_change(move |_, new| {
        if let Some(cron) = new {
            fed.add(key_of(&**cron));
        }
    });
    let fed = queue.clone();
    world.late.jobs.on_change(move |old, new| {
        let owners = old.into_iter().chain(new);
        owners
            .filter_map(|job| ownership::controller_key(&job.metadata, "CronJob"))
            .for_each(|key| fed.add(key));
    });
    let actor = world.actor("cronjob-controller", "cronjob-controller");
    let world = world.clone();
    Box::pin(async move {
        world.late.cron_jobs.synced().await;
        world.late.jobs.synced().await;
        queue.work("cronjob", 5, |key| sync(&world, &actor, key)).await;
    })
}

fn owned(world: &World, cron: &CronJob) -> Vec<Rc<Job>> {
    let mut all = world.late.jobs.in_namespace(cron.metadata.namespace.as_deref().unwrap_or_default());
    all.retain(|job| ownership::is_controlled_by(&job.metadata, cron.metadata.uid.as_deref()));
    all
}

/// `Complete` or `Failed`.
pub fn outcome(job: &Job) -> Option<(&str, Timestamp)> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    let last = conditions
        .iter()
        .find(|one| matches!(one.type_.as_str(), "Complete" | "Failed") && one.status == "True")?;
    Some((&last.type_, last.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)))
}

async fn sync(world: &Rc<World>, actor: &Actor, key: String) -> Result<Next, kube::Error> {
    let Some(cron) = world.late.cron_jobs.get(&key) else { return Ok(Next::Done) };
    let (spec, now) = (&cron.spec, Timestamp::now());
    if cron.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let mut status = cron.status.clone().unwrap_or_default();
    let mine = owned(world, &cron);
    note_ended(actor, &cron, &mut status, &mine);
    clean(actor, &cron, &mine).await?;
    let next = fire(world, actor, &cron, spec, &mut status, now).await;
    write_status(world, actor, &cron, status).await?;
    next
}

/// Takes out of the active list what has ended or is gone.
fn note_ended(actor: &Actor, cron: &CronJob, status: &mut CronJobStatus, mine: &[Rc<Job>]) {
    let by_uid = |uid: Option<&String>| mine.iter().find(|job| job.metadata.uid.as_ref() == uid);
    let mut active = status.active.take().unwrap_or_default();
    active.retain(|one| {
        let name = one.name.as_deref().unwrap_or_default();
        let Some(job) = by_uid(one.uid.as_ref()) else {
            actor.normal(cron, "MissingJob", &format!("Active job went missing: {name}"));
            return false;
        };
        let Some((how, when)) = outcome(job) else { return true };
        actor.normal(cron, "SawCompletedJob", &format!("Saw completed job: {name}, condition: {how}"));
        if how == "Complete" && status.last_successful_time.as_ref().is_none_or(|last| last.0 < when) {
            status.last_successful_time = Some(Time(when));
        }
        false
    });
    status.active = Some(active).filter(|all| !all.is_empty());
}

/// Deletes the oldest of the ended beyond what the history keeps.
async fn clean(actor: &Actor, cron: &CronJob, mine: &[Rc<Job>]) -> Result<(), kube::Error> {
    let spec = &cron.spec;
    for (how, limit) in
        [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let ended = |job: &&Rc<Job>| outcome(job).is_some_and(|(own, _)| own == how);
        let mut ended: Vec<&Rc<Job>> = mine.iter().filter(ended).collect();
        ended.sort_by_key(|job| Reverse(job.status.as_ref().and_then(|status| status.start_time.clone())));
        for job in ended.into_iter().skip(limit).filter(|job| job.metadata.deletion_timestamp.is_none()) {
            delete(actor, cron, job).await?;
        }
    }
    Ok(())
}

async fn delete(actor: &Actor, cron: &CronJob, job: &Job) -> Result<(), kube::Error> {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    match jobs(actor, cron).delete(name, &DeleteParams::background()).await {
        Ok(_) => actor.normal(cron, "SuccessfulDelete", &format!("Deleted job {name}")),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn jobs(actor: &Actor, cron: &CronJob) -> Api<Job> {
    Api::namespaced(actor.client.clone(), cron.metadata.namespace.as_deref().unwrap_or_default())
}

/// The latest time that is due, and how many were due since.
fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<(Timestamp, usize)> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let mut from = last.map_or(created, |time| time.0);
    if let Some(seconds) = cron.spec.starting_deadline_seconds {
        let oldest = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
        from = from.max(oldest);
    }
    let (mut latest, mut missed) = (None, 0);
    while missed < MOST_MISSED
        && let Some(next) = schedule.after(from, zone).filter(|next| *next <= now)
    {
        (latest, from, missed) = (Some(next), next, missed + 1);
    }
    Some((latest?, missed))
}

/// Starts the Job that is due, if any may start; answers when to look again.
async fn fire(
    world: &Rc<World>,
    actor: &Actor,
    cron: &Rc<CronJob>,
    spec: &CronJobSpec,
    status: &mut CronJobStatus,
    now: Timestamp,
) -> Result<Next, kube::Error> {
    let key = key_of(&**cron);
    let zone = spec.time_zone.as_deref().map_or(Some(TimeZone::UTC), zone::named);
    let (Ok(schedule), Some(zone)) = (Schedule::parse(&spec.schedule), zone) else {
        warn!(cron_job = key, schedule = spec.schedule, "the schedule or its zone cannot be read");
        return Ok(Next::Done);
    };
    if spec.suspend == Some(true) {
        return Ok(Next::Done);
    }
    let wait = schedule.after(now, &zone).and_then(|next| Duration::try_from(now.duration_until(next)).ok());
    let next = wait.map_or(Next::Done, Next::After);
    let Some((at, missed)) = due(cron, &schedule, &zone, now) else { return Ok(next) };
    if missed > MANY_MISSED {
        let why = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        actor.warning(&**cron, "TooManyMissedTimes", &why);
    }
    let active = status.active.clone().unwrap_or_default();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
            actor.normal(&**cron, "JobAlreadyActive", why);
            return Ok(next);
        }
        Some("Replace") => {
            let running = owned(world, cron);
            for job in running.iter().filter(|job| active.iter().any(|one| one.uid == job.metadata.uid)) {
                delete(actor, cron, job).await?;
            }
            status.active = None;
        }
        _ => {}
    }
    match jobs(actor, cron).create(&PostParams::default(), &job_at(cron, spec, at, &zone)).await {
        Ok(made) => {
            let name = made.metadata.name.clone().unwrap_or_default();
            actor.normal(&**cron, "SuccessfulCreate", &format!("Created job {name}"));
            status.active.get_or_insert_default().push(named(&made));
            world.late.jobs.learn(made);
        }
        // Made before, and the status was not written.
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => {
            if let Some(job) = owned(world, cron).iter().find(|job| outcome(job).is_none() && is_at(job, at))
            {
                status.active.get_or_insert_default().push(named(job));
            }
        }
        Err(error) => {
            actor.warning(&**cron, "FailedCreate", &format!("Error creating job: {}", pods::text(&error)));
            return Err(error);
        }
    }
    status.last_schedule_time = Some(Time(at));
    Ok(next)
}

fn is_at(job: &Job, at: Timestamp) -> bool {
    let minutes = format!("-{}", at.as_second() / 60);
    job.metadata.name.as_deref().is_some_and(|name| name.ends_with(&minutes))
}

fn named(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        name: job.metadata.name.clone(),
        namespace: job.metadata.namespace.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The Job of one time; its name says which, so that none is made twice.
fn job_at(cron: &CronJob, spec: &CronJobSpec, at: Timestamp, zone: &TimeZone) -> Job {
    let template = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let offset = at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    annotations.insert(SCHEDULED.into(), offset.replace("+00:00", "Z"));
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", at.as_second() / 60)),
            namespace: cron.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![ownership::reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

async fn write_status(
    world: &World,
    actor: &Actor,
    cron: &CronJob,
    status: CronJobStatus,
) -> Result<(), kube::Error> {
    if cron.status.clone().unwrap_or_default() == status {
        return Ok(());
    }
    let mut changed = cron.clone();
    changed.status = Some(status);
    let api: Api<CronJob> =
        Api::namespaced(actor.client.clone(), cron.metadata.namespace.as_deref().unwrap_or_default());
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    match api.replace_status(name, &PostParams::default(), &changed).await {
        Ok(written) => world.late.cron_jobs.learn(written),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cron(spec: Value, last: Value) -> CronJob {
        let mut whole = json!({"schedule": "*/10 * * * *", "jobTemplate": {"spec": {"template": {}}}});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": {"name": "tick", "namespace": "a", "uid": "u", "creationTimestamp": "2026-01-01T00:05:00Z"},
            "spec": whole, "status": {"lastScheduleTime": last},
        }))
        .unwrap()
    }

    #[test]
    fn only_the_latest_missed_time_is_due_and_only_within_the_deadline() {
        let now: Timestamp = "2026-01-01T01:03:00Z".parse().unwrap();
        let due = |cron: &CronJob| {
            let schedule = Schedule::parse(&cron.spec.schedule).unwrap();
            super::due(cron, &schedule, &TimeZone::UTC, now).map(|(at, missed)| (at.to_string(), missed))
        };
        let latest = "2026-01-01T01:00:00Z".to_owned();
        assert_eq!(due(&cron(json!({}), Value::Null)), Some((latest.clone(), 6)));
        assert_eq!(due(&cron(json!({}), json!(latest))), None);
        assert_eq!(due(&cron(json!({"startingDeadlineSeconds": 60}), Value::Null)), None);
    }

    #[test]
    fn the_job_is_named_after_its_minute() {
        let cron = cron(json!({}), Value::Null);
        let at = "2026-01-01T01:00:00Z".parse().unwrap();
        let job = job_at(&cron, &cron.spec, at, &TimeZone::UTC);
        assert_eq!(job.metadata.name.as_deref(), Some("tick-29453820"));
        assert!(is_at(&job, at));
        assert_eq!(job.metadata.annotations.unwrap()[SCHEDULED], "2026-01-01T01:00:00Z");
    }
}
