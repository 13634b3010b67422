//! When a Job is over, and the conditions that say so.

use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::count::Tally;
use super::{indexes, time};
use crate::control::controllers::workloads::pods;

fn holds<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|one| one.type_ == kind && one.status == "True")
}

pub fn is_finished(status: &JobStatus) -> bool {
    holds(status, "Complete").or_else(|| holds(status, "Failed")).is_some()
}

pub fn failing(status: &JobStatus) -> bool {
    holds(status, "FailureTarget").is_some()
}

fn set(status: &mut JobStatus, kind: &str, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|one| one.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: time(now),
        last_transition_time: time(now),
    });
}

/// Starts the clock, or stops it while the Job is suspended; answers the event's reason if that changed.
pub fn suspension(status: &mut JobStatus, spec: &JobSpec, now: Timestamp) -> Option<&'static str> {
    let was = holds(status, "Suspended").is_some();
    match (spec.suspend == Some(true), was) {
        (true, false) => {
            set(status, "Suspended", "True", "JobSuspended", "Job suspended", now);
            status.start_time = None;
            Some("Suspended")
        }
        (false, true) => {
            set(status, "Suspended", "False", "JobResumed", "Job resumed", now);
            status.start_time = time(now);
            Some("Resumed")
        }
        (true, true) => None,
        (false, false) => {
            status.start_time = status.start_time.take().or_else(|| time(now));
            None
        }
    }
}

/// How long a Job may still run.
pub fn deadline(job: &Job, now: Timestamp) -> Option<Duration> {
    let limit = job.spec.as_ref()?.active_deadline_seconds?;
    let start = job.status.as_ref()?.start_time.as_ref()?;
    let left = limit - (now.as_second() - start.0.as_second());
    u64::try_from(left).ok().map(Duration::from_secs)
}

/// Whether nothing more is to be run; says so in the status.
pub fn judge(job: &Job, mine: &[Rc<Pod>], tally: &mut Tally, now: Timestamp) -> bool {
    if failing(&tally.status) || holds(&tally.status, "SuccessCriteriaMet").is_some() {
        return true;
    }
    let spec = job.spec.clone().unwrap_or_default();
    if let Some((reason, message)) = failure(&spec, mine, tally, now) {
        set(&mut tally.status, "FailureTarget", "True", reason, &message, now);
        return true;
    }
    if let Some((reason, message)) = success(&spec, tally) {
        set(&mut tally.status, "SuccessCriteriaMet", "True", reason, message, now);
        return true;
    }
    false
}

fn failure(
    spec: &JobSpec,
    mine: &[Rc<Pod>],
    tally: &Tally,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    if let Some(message) = &tally.policy {
        return Some(("PodFailurePolicy", message.clone()));
    }
    let limit = spec.backoff_limit.unwrap_or(6);
    if tally.failed() > limit || restarted_too_often(spec, mine, limit) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
    }
    let over = |deadline: i64| {
        let start = tally.status.start_time.as_ref();
        spec.suspend != Some(true)
            && start.is_some_and(|start| now.as_second() - start.0.as_second() >= deadline)
    };
    if spec.active_deadline_seconds.is_some_and(over) {
        return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
    }
    spec.backoff_limit_per_index?;
    let failed = tally.failed_indexes.len();
    if spec.max_failed_indexes.is_some_and(|most| failed > usize::try_from(most).unwrap_or(0)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message.into()));
    }
    let all = usize::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
    (failed > 0 && failed + tally.done_indexes.len() >= all)
        .then(|| ("FailedIndexes", "Job has failed indexes".into()))
}

/// Containers that restart in place never make a failed pod.
fn restarted_too_often(spec: &JobSpec, mine: &[Rc<Pod>], limit: i32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let live = mine.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let statuses = live.filter_map(|pod| pod.status.as_ref());
    let all = statuses
        .flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten());
    let restarts: i32 = all.map(|one| one.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn success(spec: &JobSpec, tally: &Tally) -> Option<(&'static str, &'static str)> {
    for rule in spec.success_policy.iter().flat_map(|policy| &policy.rules) {
        let counted = match &rule.succeeded_indexes {
            Some(text) => {
                let named = indexes::read(text);
                (named.intersection(&tally.done_indexes).count(), named.len())
            }
            None => (tally.done_indexes.len(), usize::MAX),
        };
        let needed = rule.succeeded_count.and_then(|count| usize::try_from(count).ok()).unwrap_or(counted.1);
        if counted.0 >= needed {
            return Some(("SuccessPolicy", "Matched rules at index 0"));
        }
    }
    let done = match spec.completions {
        None => tally.succeeded() > 0 && tally.active.is_empty(),
        Some(wanted) => tally.succeeded() >= usize::try_from(wanted).unwrap_or(0),
    };
    done.then_some(("CompletionsReached", "Reached expected number of succeeded pods"))
}

/// The last word, if there is a verdict: its kind, reason and message.
pub fn conclude(status: &mut JobStatus, now: Timestamp) -> Option<(&'static str, String, String)> {
    let (kind, found) = match (holds(status, "FailureTarget"), holds(status, "SuccessCriteriaMet")) {
        (Some(found), _) => ("Failed", found.clone()),
        (None, Some(found)) => ("Complete", found.clone()),
        (None, None) => return None,
    };
    let (reason, message) = (found.reason.unwrap_or_default(), found.message.unwrap_or_default());
    set(status, kind, "True", &reason, &message, now);
    if kind == "Complete" {
        status.completion_time = time(now);
    }
    Some((kind, reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn judged(spec: Value, status: Value) -> Option<String> {
        let mut whole = json!({"template": {}, "parallelism": 1, "completions": 1, "backoffLimit": 6});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let job: Job =
            serde_json::from_value(json!({"metadata": {}, "spec": whole, "status": status})).unwrap();
        let mut tally = super::super::count::of(&job, &[]);
        judge(&job, &[], &mut tally, "2026-01-01T00:01:00Z".parse().unwrap());
        tally.status.conditions.and_then(|all| all.last().and_then(|one| one.reason.clone()))
    }

    #[test]
    fn a_job_ends_when_enough_succeeded_too_many_failed_or_time_is_up() {
        assert_eq!(judged(json!({}), json!({})), None);
        assert_eq!(judged(json!({}), json!({"succeeded": 1})).as_deref(), Some("CompletionsReached"));
        assert_eq!(judged(json!({}), json!({"failed": 6})), None);
        assert_eq!(judged(json!({}), json!({"failed": 7})).as_deref(), Some("BackoffLimitExceeded"));
        let started = json!({"startTime": "2026-01-01T00:00:00Z"});
        assert_eq!(judged(json!({"activeDeadlineSeconds": 61}), started.clone()), None);
        assert_eq!(
            judged(json!({"activeDeadlineSeconds": 60}), started).as_deref(),
            Some("DeadlineExceeded")
        );
        assert_eq!(
            judged(json!({"completions": null}), json!({"succeeded": 1})).as_deref(),
            Some("CompletionsReached")
        );
    }
}
