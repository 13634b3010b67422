//! Pods that spread evenly over the places of a topology (the PodTopologySpread plugin).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, TopologySpreadConstraint};
use kube::core::SelectorExt;

use super::cluster::Candidate;
use super::filter::{Refusal, affinity, taints};
use super::neighbours::{domain, labels, with_own_values};

fn constraints<'a>(pod: &'a Pod, when: &'a str) -> impl Iterator<Item = &'a TopologySpreadConstraint> {
    let all = pod.spec.iter().flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
    all.filter(move |one| one.when_unsatisfiable == when)
}

/// Matching pods in each place that counts for this pod.
fn counts<'a>(one: &TopologySpreadConstraint, pod: &Pod, all: &'a [Candidate]) -> BTreeMap<&'a str, i32> {
    let selector = with_own_values(one.label_selector.as_ref(), one.match_label_keys.as_deref(), pod);
    let mut counts = BTreeMap::new();
    for candidate in all {
        let honours = one.node_affinity_policy.as_deref() != Some("Ignore");
        let heeds = one.node_taints_policy.as_deref() == Some("Honor");
        let node = &candidate.node;
        if (honours && affinity(pod, node).is_err()) || (heeds && taints(pod, node).is_err()) {
            continue;
        }
        let Some(place) = domain(node, &one.topology_key) else { continue };
        let counted = candidate.load.here.iter().filter(|other| {
            other.metadata.namespace == pod.metadata.namespace
                && other.metadata.deletion_timestamp.is_none()
                && selector.as_ref().is_some_and(|selector| selector.matches(&labels(other)))
        });
        *counts.entry(place).or_insert(0) += i32::try_from(counted.count()).unwrap_or(i32::MAX);
    }
    counts
}

pub fn check(pod: &Pod, candidate: &Candidate, all: &[Candidate]) -> Result<(), Refusal> {
    for one in constraints(pod, "DoNotSchedule") {
        let Some(place) = domain(&candidate.node, &one.topology_key) else {
            let why = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Refusal::for_good(why));
        };
        let counts = counts(one, pod, all);
        let few = one.min_domains.is_some_and(|least| counts.len() < usize::try_from(least).unwrap_or(0));
        let least = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let selector = with_own_values(one.label_selector.as_ref(), one.match_label_keys.as_deref(), pod);
        let own = i32::from(selector.is_some_and(|selector| selector.matches(&labels(pod))));
        if counts.get(place).copied().unwrap_or(0) + own - least > one.max_skew {
            return Err(Refusal::for_now(vec![
                "node(s) didn't match pod topology spread constraints".into(),
            ]));
        }
    }
    Ok(())
}

/// How crowded a node's places are, for constraints that are only wishes: less is better.
pub fn crowd(pod: &Pod, candidate: &Candidate, all: &[Candidate]) -> f64 {
    let of = |one: &TopologySpreadConstraint| {
        let place = domain(&candidate.node, &one.topology_key);
        let counts = counts(one, pod, all);
        match place {
            Some(place) => f64::from(counts.get(place).copied().unwrap_or(0)),
            None => f64::from(counts.values().copied().max().unwrap_or(0) + 1),
        }
    };
    constraints(pod, "ScheduleAnyway").map(of).sum()
}
