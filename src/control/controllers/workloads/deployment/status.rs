//! A deployment's status: counts, and the conditions `kubectl rollout status` and `describe` print. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::rolling::{available, limits, size, spec, total, wanted};

pub const PROGRESSING: &str = "Progressing";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
/// Upstream's "no deadline".
const NEVER: i32 = i32::MAX;

pub fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_deref().unwrap_or_default().iter().find(|one| one.type_ == type_)
}

/// Sets a condition; one that says the same stays as it is, and a transition is dated only when it is one.
pub fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    let all = status.conditions.get_or_insert_default();
    if let Some(old) = all.iter().find(|one| one.type_ == new.type_) {
        if (&old.status, &old.reason) == (&new.status, &new.reason) {
            return;
        }
        if old.status == new.status {
            new.last_transition_time.clone_from(&old.last_transition_time);
        }
    }
    all.retain(|one| one.type_ != new.type_);
    all.push(new);
}

fn has_deadline(deployment: &Deployment) -> bool {
    spec(deployment).progress_deadline_seconds.is_some_and(|seconds| seconds != NEVER)
}

/// Counts, and whether enough pods are available.
pub fn count(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let all = || old.iter().chain(new);
    let current = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let terminating =
        |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
    let is_available = total(all(), available);
    let some = |number: i32| Some(number).filter(|number| *number != 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(total(all(), current)),
        updated_replicas: some(new.map_or(0, current)),
        ready_replicas: some(total(all(), ready)),
        available_replicas: some(is_available),
        unavailable_replicas: some((total(all(), size) - is_available).max(0)),
        terminating_replicas: Some(total(all(), terminating)),
        collision_count: deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: deployment.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let enough = is_available >= wanted(deployment) - limits(deployment).1;
    let (value, reason, message) = match enough {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    set(&mut status, condition("Available", value, reason, message, now));
    status
}

pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    let counts = [status.updated_replicas, status.replicas, status.available_replicas];
    counts.iter().all(|count| count.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let outdated =
        |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas.unwrap_or(0) > old.updated_replicas.unwrap_or(0)
        || outdated(new) < outdated(old)
        || new.ready_replicas.unwrap_or(0) > old.ready_replicas.unwrap_or(0)
        || new.available_replicas.unwrap_or(0) > old.available_replicas.unwrap_or(0)
}

/// How long until the update counts as stuck; `None` when it does not run, zero when it is.
pub fn deadline(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let seconds = spec(deployment).progress_deadline_seconds.filter(|seconds| *seconds != NEVER)?;
    let current = find(status, PROGRESSING)?;
    match current.reason.as_deref() {
        Some(COMPLETE | PAUSED) => None,
        Some(TIMED_OUT) => Some(Duration::ZERO),
        _ => {
            let from = current.last_update_time.as_ref().map_or(now, |time| time.0);
            let left = from.as_second() + i64::from(seconds) - now.as_second();
            Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
        }
    }
}

/// The status of a rollout under way: counts and how it goes.
pub fn rollout(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = count(deployment, new, old, now);
    let before = deployment.status.clone().unwrap_or_default();
    let what = match new.and_then(|set| set.metadata.name.as_deref()) {
        Some(name) => format!("ReplicaSet {name:?}"),
        None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    if !has_deadline(deployment) {
        status.conditions.get_or_insert_default().retain(|one| one.type_ != PROGRESSING);
    } else if !was_complete(&status) {
        if is_complete(deployment, &status) {
            let message = format!("{what} has successfully progressed.");
            set(&mut status, condition(PROGRESSING, "True", COMPLETE, &message, now));
        } else if is_progressing(&before, &status) {
            let mut moving =
                condition(PROGRESSING, "True", "ReplicaSetUpdated", &format!("{what} is progressing."), now);
            if let Some(current) = find(&status, PROGRESSING).filter(|current| current.status == "True") {
                moving.last_transition_time.clone_from(&current.last_transition_time);
            }
            // Every step forward restarts the deadline, so even the same words are written anew.
            let all = status.conditions.get_or_insert_default();
            all.retain(|one| one.type_ != PROGRESSING);
            all.push(moving);
        } else if deadline(deployment, &status, now) == Some(Duration::ZERO) {
            let message = format!("{what} has timed out progressing.");
            set(&mut status, condition(PROGRESSING, "False", TIMED_OUT, &message, now));
        }
    }
    failures(&mut status, new, old);
    status
}

/// Nothing but the last, finished update.
fn was_complete(status: &DeploymentStatus) -> bool {
    let reason = find(status, PROGRESSING).and_then(|current| current.reason.as_deref());
    status.replicas == status.updated_replicas && reason == Some(COMPLETE)
}

/// A set that cannot make its pods fails the deployment.
fn failures(status: &mut DeploymentStatus, new: Option<&ReplicaSet>, old: &[ReplicaSet]) {
    let failure = new.into_iter().chain(old).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|one| one.type_ == "ReplicaFailure")
    });
    match failure {
        None => status.conditions.get_or_insert_default().retain(|one| one.type_ != "ReplicaFailure"),
        Some(failure) => {
            let time = failure.last_transition_time.clone();
            let copied = DeploymentCondition {
                type_: failure.type_.clone(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: time.clone(),
                last_transition_time: time,
            };
            set(status, copied);
        }
    }
}

/// Says that an update is paused or goes on; `None` when that has been said.
pub fn pause(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    if !has_deadline(deployment) {
        return None;
    }
    let status = deployment.status.clone().unwrap_or_default();
    let reason = find(&status, PROGRESSING).and_then(|current| current.reason.as_deref());
    match (spec(deployment).paused.unwrap_or(false), reason) {
        (_, Some(TIMED_OUT)) | (true, Some(PAUSED)) => None,
        (true, _) => Some(condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now)),
        (false, Some(PAUSED)) => {
            Some(condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now))
        }
        (false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rolling::tests::{deployment, set as replica_set};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn reason(status: &DeploymentStatus, type_: &str) -> String {
        find(status, type_).and_then(|one| one.reason.clone()).unwrap_or_default()
    }

    #[test]
    fn an_update_progresses_completes_and_says_so() {
        let mut web = deployment(2, "25%", "25%");
        let moving = rollout(&web, Some(&replica_set("web-1", 2, 1)), &[], at(10));
        assert_eq!(reason(&moving, "Available"), "MinimumReplicasUnavailable");
        assert_eq!(
            find(&moving, PROGRESSING).unwrap().message.as_deref(),
            Some("ReplicaSet \"web-1\" is progressing.")
        );
        web.status = Some(moving);
        let done = rollout(&web, Some(&replica_set("web-1", 2, 2)), &[], at(20));
        assert_eq!(reason(&done, PROGRESSING), "NewReplicaSetAvailable");
        assert_eq!(reason(&done, "Available"), "MinimumReplicasAvailable");
        assert!(is_complete(&web, &done));
        assert_eq!(find(&done, PROGRESSING).unwrap().last_transition_time, Some(Time(at(10))));
    }

    #[test]
    fn an_update_that_stands_still_times_out() {
        let mut web = deployment(2, "25%", "25%");
        web.status = Some(rollout(&web, Some(&replica_set("web-1", 2, 1)), &[], at(0)));
        let still = rollout(&web, Some(&replica_set("web-1", 2, 1)), &[], at(599));
        assert_eq!(reason(&still, PROGRESSING), "ReplicaSetUpdated");
        assert_eq!(deadline(&web, &still, at(599)), Some(Duration::from_secs(1)));
        let stuck = rollout(&web, Some(&replica_set("web-1", 2, 1)), &[], at(601));
        assert_eq!(reason(&stuck, PROGRESSING), "ProgressDeadlineExceeded");
    }

    #[test]
    fn a_pause_is_said_once() {
        let mut web = deployment(2, "1", "0");
        web.spec.as_mut().unwrap().paused = Some(true);
        let said = pause(&web, at(1)).unwrap();
        assert_eq!(said.message.as_deref(), Some("Deployment is paused"));
        let mut status = DeploymentStatus::default();
        set(&mut status, said);
        web.status = Some(status);
        assert_eq!(pause(&web, at(2)), None);
        web.spec.as_mut().unwrap().paused = None;
        assert_eq!(pause(&web, at(3)).unwrap().reason.as_deref(), Some("DeploymentResumed"));
    }
}
