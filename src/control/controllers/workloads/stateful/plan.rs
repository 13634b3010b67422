//! The next steps of a StatefulSet, from what is there.

use std::collections::BTreeMap;
use std::rc::Rc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::super::{deployment::share, pods};
use super::identity;

/// The names of the revision that was and the one that is wanted.
pub struct Revisions {
    pub current: String,
    pub update: String,
}

#[derive(Default)]
pub struct Steps {
    /// Ordinals, each with whether it gets the updated template.
    pub create: Vec<(i32, bool)>,
    pub delete: Vec<Rc<Pod>>,
    /// Ordinals beyond the last, whose claims go too.
    pub condemned_claims: Vec<i32>,
}

pub fn steps(set: &StatefulSet, names: &Revisions, mine: &[Rc<Pod>], now: Timestamp) -> Steps {
    let spec = set.spec.clone().unwrap_or_default();
    let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let end = first + spec.replicas.unwrap_or(1);
    let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    let rolling = strategy.rolling_update.clone().unwrap_or_default();
    let on_delete = strategy.type_.as_deref() == Some("OnDelete");
    let partition = rolling.partition.unwrap_or(0);
    let by_ordinal: BTreeMap<i32, &Rc<Pod>> =
        mine.iter().filter_map(|pod| Some((identity::ordinal(set, pod)?, pod))).collect();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let serves =
        |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && pods::is_available(pod, min_ready, now);
    let mut steps = Steps::default();
    let mut waits = false;
    for ordinal in first..end {
        match by_ordinal.get(&ordinal) {
            // While an update rolls, what it has not reached keeps its template.
            None => {
                let updated = names.current == names.update || on_delete || ordinal >= partition;
                steps.create.push((ordinal, updated));
                waits = true;
            }
            Some(pod) if pod.metadata.deletion_timestamp.is_some() => waits = true,
            // One that ended is made anew under its name.
            Some(pod) if pods::is_finished(pod) => {
                steps.delete.push(Rc::clone(pod));
                waits = true;
            }
            Some(pod) => waits |= !serves(pod),
        }
        if ordered && waits {
            break;
        }
    }
    let busy = ordered && waits;
    let condemned: Vec<(i32, &Rc<Pod>)> = by_ordinal
        .iter()
        .rev()
        .filter(|(ordinal, _)| !(first..end).contains(ordinal))
        .map(|(ordinal, pod)| (*ordinal, *pod))
        .collect();
    let policy = spec.persistent_volume_claim_retention_policy.unwrap_or_default();
    if policy.when_scaled.as_deref() == Some("Delete") {
        steps.condemned_claims = condemned.iter().map(|(ordinal, _)| *ordinal).collect();
    }
    if !busy {
        scale_down(&mut steps, &condemned, ordered);
    }
    let still = if ordered { waits || !condemned.is_empty() } else { false };
    if on_delete || still || !steps.create.is_empty() {
        // Nothing that is broken holds an update back: a pod that never got ready is replaced.
        if !on_delete && ordered && steps.create.is_empty() && steps.delete.is_empty() {
            steps.delete.extend(broken(names, &by_ordinal, (partition.max(first), end), &serves));
        }
        return steps;
    }
    let most = rolling.max_unavailable.map_or(1, |most| share(&most, end - first, false).max(1));
    let most = usize::try_from(most).unwrap_or(1);
    let unavailable =
        (first..end).filter(|ordinal| !by_ordinal.get(ordinal).is_some_and(|pod| serves(pod))).count();
    let outdated = (partition.max(first)..end).rev().filter_map(|ordinal| {
        let pod = by_ordinal.get(&ordinal)?;
        (identity::revision(pod) != Some(&names.update) && pod.metadata.deletion_timestamp.is_none())
            .then(|| Rc::clone(pod))
    });
    steps.delete.extend(outdated.take(most.saturating_sub(unavailable)));
    steps
}

fn scale_down(steps: &mut Steps, condemned: &[(i32, &Rc<Pod>)], ordered: bool) {
    for (_, pod) in condemned {
        if pod.metadata.deletion_timestamp.is_none() {
            steps.delete.push(Rc::clone(pod));
        }
        if ordered {
            break;
        }
    }
}

/// The outdated pod with the highest ordinal, if it does not serve anyway.
fn broken(
    names: &Revisions,
    by_ordinal: &BTreeMap<i32, &Rc<Pod>>,
    (from, end): (i32, i32),
    serves: &dyn Fn(&Pod) -> bool,
) -> Option<Rc<Pod>> {
    let outdated = |pod: &&&Rc<Pod>| identity::revision(pod) != Some(&names.update);
    let pods = (from..end).rev().filter_map(|ordinal| by_ordinal.get(&ordinal));
    let highest = pods.clone().find(outdated)?;
    let others_go = pods.into_iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
    (!others_go && !serves(highest)).then(|| Rc::clone(highest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> StatefulSet {
        let mut whole = json!({"replicas": 3, "selector": {}, "template": {}, "serviceName": "db"});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "db", "namespace": "a"}, "spec": whole})).unwrap()
    }

    fn pod(ordinal: i32, revision: &str, ready: bool) -> Rc<Pod> {
        let ready = if ready { "True" } else { "False" };
        Rc::new(
            serde_json::from_value(json!({
                "metadata": {"name": format!("db-{ordinal}"), "labels": {"controller-revision-hash": revision}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap(),
        )
    }

    fn said(spec: Value, names: (&str, &str), mine: &[Rc<Pod>]) -> (Vec<i32>, Vec<String>) {
        let names = Revisions { current: names.0.into(), update: names.1.into() };
        let steps = steps(&set(spec), &names, mine, Timestamp::now());
        let deleted = steps.delete.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        (steps.create.iter().map(|(ordinal, _)| *ordinal).collect(), deleted)
    }

    #[test]
    fn ordered_sets_take_one_step_at_a_time() {
        let one = ("a", "a");
        assert_eq!(said(json!({}), one, &[]), (vec![0], vec![]));
        assert_eq!(said(json!({}), one, &[pod(0, "a", false)]), (vec![], vec![]));
        assert_eq!(said(json!({}), one, &[pod(0, "a", true)]), (vec![1], vec![]));
        let parallel = json!({"podManagementPolicy": "Parallel"});
        assert_eq!(said(parallel, one, &[]), (vec![0, 1, 2], vec![]));
        let four: Vec<Rc<Pod>> = (0..5).map(|ordinal| pod(ordinal, "a", true)).collect();
        assert_eq!(said(json!({}), one, &four), (vec![], vec!["db-4".to_owned()]));
    }

    #[test]
    fn updates_go_from_the_top_down_to_the_partition() {
        let all: Vec<Rc<Pod>> = (0..3).map(|ordinal| pod(ordinal, "a", true)).collect();
        assert_eq!(said(json!({}), ("a", "b"), &all), (vec![], vec!["db-2".to_owned()]));
        let half = [all[0].clone(), all[1].clone(), pod(2, "b", true)];
        assert_eq!(said(json!({}), ("a", "b"), &half), (vec![], vec!["db-1".to_owned()]));
        let canary = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        assert_eq!(said(canary, ("a", "b"), &half), (vec![], vec![]));
        let starting = [all[0].clone(), all[1].clone(), pod(2, "b", false)];
        assert_eq!(said(json!({}), ("a", "b"), &starting), (vec![], vec![]));
        let never_ready = [all[0].clone(), all[1].clone(), pod(2, "a", false)];
        assert_eq!(said(json!({}), ("a", "b"), &never_ready), (vec![], vec!["db-2".to_owned()]));
    }
}
