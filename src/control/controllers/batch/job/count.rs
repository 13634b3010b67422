//! How a Job's pods ended so far, each counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::failure::{self, Action};
use super::{indexes, is_tracked, only_failed};
use crate::control::controllers::workloads::pods;

/// What the pods make of the status.
pub struct Tally {
    pub status: JobStatus,
    pub active: Vec<Rc<Pod>>,
    pub terminating: usize,
    /// Pods whose end is in the status: once that is on disk their finalizer comes off.
    pub counted: Vec<Rc<Pod>>,
    pub done_indexes: BTreeSet<u32>,
    pub failed_indexes: BTreeSet<u32>,
    /// How often each index has failed.
    pub failures: BTreeMap<u32, i32>,
    /// Failures since the last success, and when the latest was.
    pub recent_failures: Option<(usize, Timestamp)>,
    /// What the failure policy says of the whole Job.
    pub policy: Option<String>,
    indexed: bool,
}

impl Tally {
    pub fn succeeded(&self) -> usize {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let waiting = uncounted.and_then(|lists| lists.succeeded.as_ref()).map_or(0, Vec::len);
        usize::try_from(self.status.succeeded.unwrap_or(0)).unwrap_or(0) + waiting
    }

    pub fn failed(&self) -> i32 {
        let uncounted = self.status.uncounted_terminated_pods.as_ref();
        let waiting = uncounted.and_then(|lists| lists.failed.as_ref()).map_or(0, Vec::len);
        self.status.failed.unwrap_or(0) + i32::try_from(waiting).unwrap_or(i32::MAX)
    }

    /// After pods were made.
    pub fn look_again(&mut self, mine: &[Rc<Pod>]) {
        self.active = mine.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    }
}

pub fn of(job: &Job, mine: &[Rc<Pod>]) -> Tally {
    let spec = job.spec.clone().unwrap_or_default();
    let mut tally = Tally {
        status: job.status.clone().unwrap_or_default(),
        active: mine.iter().filter(|pod| pods::is_active(pod)).cloned().collect(),
        terminating: mine.iter().filter(|pod| is_leaving(pod)).count(),
        counted: Vec::new(),
        done_indexes: BTreeSet::new(),
        failed_indexes: BTreeSet::new(),
        failures: BTreeMap::new(),
        recent_failures: recent_failures(mine),
        policy: None,
        indexed: spec.completion_mode.as_deref() == Some("Indexed"),
    };
    tally.done_indexes = indexes::read(tally.status.completed_indexes.as_deref().unwrap_or_default());
    tally.failed_indexes = indexes::read(tally.status.failed_indexes.as_deref().unwrap_or_default());
    move_counted(&mut tally.status, mine);
    for pod in mine.iter().filter(|pod| is_tracked(pod)) {
        if pods::phase(pod) == "Succeeded" {
            tally.success(pod);
        } else if has_failed(pod, only_failed(&spec)) {
            tally.failure(job, pod);
        }
    }
    tally.failures_by_index(mine, spec.backoff_limit_per_index);
    if tally.indexed {
        let done = indexes::write(&tally.done_indexes);
        tally.status.completed_indexes = Some(done).filter(|text| !text.is_empty());
        tally.status.succeeded =
            Some(i32::try_from(tally.done_indexes.len()).unwrap_or(i32::MAX)).filter(|count| *count > 0);
        if spec.backoff_limit_per_index.is_some() {
            tally.status.failed_indexes = Some(indexes::write(&tally.failed_indexes));
        }
    }
    tally
}

pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && !pods::is_finished(pod)
}

/// A pod that is deleted before it ends never says how it would have.
fn has_failed(pod: &Pod, only_failed: bool) -> bool {
    pods::phase(pod) == "Failed" || (!only_failed && is_leaving(pod))
}

/// Ends whose pods are freed move from the lists to the counters.
fn move_counted(status: &mut JobStatus, mine: &[Rc<Pod>]) {
    let lists = status.uncounted_terminated_pods.get_or_insert_default();
    let held =
        |uid: &String| mine.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid) && is_tracked(pod));
    for (list, counter) in
        [(&mut lists.succeeded, &mut status.succeeded), (&mut lists.failed, &mut status.failed)]
    {
        let Some(uids) = list else { continue };
        let before = uids.len();
        uids.retain(held);
        let freed = i32::try_from(before - uids.len()).unwrap_or(i32::MAX);
        if freed > 0 {
            *counter = Some(counter.unwrap_or(0) + freed);
        }
        if uids.is_empty() {
            *list = None;
        }
    }
}

impl Tally {
    fn success(&mut self, pod: &Rc<Pod>) {
        self.counted.push(pod.clone());
        if self.indexed {
            self.done_indexes.extend(indexes::of(pod));
            return;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let list =
            self.status.uncounted_terminated_pods.get_or_insert_default().succeeded.get_or_insert_default();
        if !list.contains(&uid) {
            list.push(uid);
        }
    }

    fn failure(&mut self, job: &Job, pod: &Rc<Pod>) {
        self.counted.push(pod.clone());
        match failure::judge(job, pod) {
            Action::Ignore => return,
            Action::FailJob(message) => self.policy = Some(message),
            Action::FailIndex => self.failed_indexes.extend(indexes::of(pod)),
            Action::Count => {}
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let list =
            self.status.uncounted_terminated_pods.get_or_insert_default().failed.get_or_insert_default();
        if !list.contains(&uid) {
            list.push(uid);
        }
    }

    fn failures_by_index(&mut self, mine: &[Rc<Pod>], limit: Option<i32>) {
        if !self.indexed {
            return;
        }
        for pod in mine.iter().filter(|pod| pods::phase(pod) == "Failed") {
            if let Some(index) = indexes::of(pod) {
                *self.failures.entry(index).or_default() += 1;
            }
        }
        if let Some(limit) = limit {
            let over = self.failures.iter().filter(|(_, count)| **count > limit).map(|(index, _)| *index);
            self.failed_indexes.extend(over.collect::<Vec<_>>());
        }
        let done = &self.done_indexes;
        self.failed_indexes.retain(|index| !done.contains(index));
    }
}

/// When a pod's last container ended.
fn ended(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let ends = statuses.iter().filter_map(|one| {
        let terminated = one.state.as_ref()?.terminated.as_ref()?;
        terminated.finished_at.as_ref().map(|time| time.0)
    });
    ends.max().or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

fn recent_failures(mine: &[Rc<Pod>]) -> Option<(usize, Timestamp)> {
    let of = |phase: &'static str| {
        mine.iter().filter(move |pod| pods::phase(pod) == phase).filter_map(|pod| ended(pod))
    };
    let success = of("Succeeded").max();
    let since: Vec<Timestamp> =
        of("Failed").filter(|end| success.is_none_or(|success| *end > success)).collect();
    Some((since.len(), *since.iter().max()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(status: Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j", "uid": "u"}, "status": status,
            "spec": {"completions": 2, "parallelism": 2, "template": {}}}))
        .unwrap()
    }

    fn pod(uid: &str, phase: &str, held: bool) -> Rc<Pod> {
        let finalizers: &[&str] = if held { &[super::super::TRACKING] } else { &[] };
        Rc::new(
            serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid, "finalizers": finalizers},
                "status": {"phase": phase}}))
            .unwrap(),
        )
    }

    #[test]
    fn an_end_is_counted_once_whenever_the_controller_dies() {
        let first = of(&job(json!({})), &[pod("a", "Succeeded", true), pod("b", "Failed", true)]);
        assert_eq!((first.succeeded(), first.failed(), first.counted.len()), (1, 1, 2));
        assert_eq!(first.status.succeeded, None);
        let again = of(&job(serde_json::to_value(&first.status).unwrap()), &[pod("a", "Succeeded", true)]);
        assert_eq!((again.succeeded(), again.failed()), (1, 1));
        let freed = of(&job(serde_json::to_value(&again.status).unwrap()), &[pod("a", "Succeeded", false)]);
        assert_eq!((freed.status.succeeded, freed.status.failed), (Some(1), Some(1)));
        assert_eq!((freed.succeeded(), freed.counted.len()), (1, 0));
    }
}
