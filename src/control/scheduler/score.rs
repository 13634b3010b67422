//! Which of the possible nodes is best: the least loaded, away from siblings, with the fewest soft taints.
//!
//! Upstream's default scores with their weights, as far as their plugins exist here: least allocated
//! (1), balanced allocation (1), spreading (2), preferred node affinity (2), preferred neighbours (2), soft
//! taints (3).

use k8s_openapi::api::core::v1::{Node, Pod};

use super::cluster::{Candidate, owner};
use super::filter::term_matches;
use super::resources::weighed;
use super::{neighbours, spread};
use crate::api::taints::tolerates;

const FULL: f64 = 100.0;

/// The best of `candidates`; among equals the one with fewer pods, then the first by name.
pub fn best<'a>(pod: &Pod, candidates: &[&'a Candidate], all: &[Candidate]) -> Option<&'a Candidate> {
    let crowd: Vec<f64> = candidates.iter().map(|one| spread::crowd(pod, one, all)).collect();
    let liked: Vec<f64> = candidates.iter().map(|one| neighbours::preference(pod, one, all)).collect();
    let siblings: Vec<f64> = candidates.iter().map(|one| sibling_count(pod, one)).collect();
    let soft: Vec<f64> = candidates.iter().map(|one| soft_taints(pod, &one.node)).collect();
    let preferred: Vec<f64> = candidates.iter().map(|one| preference(pod, &one.node)).collect();
    let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let (most_siblings, most_soft, most_preferred) = (most(&siblings), most(&soft), most(&preferred));
    // Few is good: none scores full, the most scores nothing.
    let few = |count: f64, most: f64| if most > 0.0 { FULL * (most - count) / most } else { FULL };
    let many = |count: f64, most: f64| if most > 0.0 { FULL * count / most } else { 0.0 };
    let most_crowd = most(&crowd);
    let (least_liked, most_liked) =
        liked.iter().fold((0.0_f64, 0.0_f64), |(low, high), one| (low.min(*one), high.max(*one)));
    let like = |own: f64| {
        if most_liked > least_liked { FULL * (own - least_liked) / (most_liked - least_liked) } else { 0.0 }
    };
    let total = |index: usize| {
        let (least, balance) = allocation(pod, candidates[index]);
        least
            + balance
            + 2.0 * few(siblings[index], most_siblings)
            + 2.0 * many(preferred[index], most_preferred)
            + 2.0 * few(crowd[index], most_crowd)
            + 2.0 * like(liked[index])
            + 3.0 * few(soft[index], most_soft)
    };
    let better = |a: &usize, b: &usize| {
        let by_load = candidates[*b].load.pods.cmp(&candidates[*a].load.pods);
        total(*a).total_cmp(&total(*b)).then(by_load).then(b.cmp(a))
    };
    (0..candidates.len()).max_by(better).map(|index| candidates[index])
}

/// (least allocated, balanced allocation), each 0 to 100, with the pod on the node.
#[expect(clippy::cast_precision_loss, reason = "a score needs no more than an f64's 53 bits")]
fn allocation(pod: &Pod, candidate: &Candidate) -> (f64, f64) {
    let adds = weighed(pod);
    let used = |name: &str| {
        let has = candidate.allocatable.get(name);
        let wants = candidate.load.weighed.get(name) + adds.get(name);
        if has <= 0 { 1.0 } else { (wants as f64 / has as f64).min(1.0) }
    };
    let (cpu, memory) = (used("cpu"), used("memory"));
    let deviation = (cpu - memory).abs() / 2.0;
    (FULL * (1.0 - cpu.midpoint(memory)), FULL * (1.0 - deviation))
}

#[expect(clippy::cast_precision_loss, reason = "a count of pods on a node is small")]
fn sibling_count(pod: &Pod, candidate: &Candidate) -> f64 {
    owner(pod).and_then(|owner| candidate.load.owners.get(&owner)).map_or(0.0, |count| *count as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a count of taints on a node is small")]
fn soft_taints(pod: &Pod, node: &Node) -> f64 {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerations.iter().any(|one| tolerates(one, taint))).count() as f64
}

fn preference(pod: &Pod, node: &Node) -> f64 {
    let terms = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.affinity.as_ref())
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default();
    terms.iter().filter(|term| term_matches(&term.preference, node)).map(|term| f64::from(term.weight)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::scheduler::cluster::Load;
    use crate::control::scheduler::resources::{allocatable, requested};
    use serde_json::{Value, json};
    use std::rc::Rc;

    fn candidate(name: &str, spec: Value) -> Candidate {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"name": name}}, "spec": spec,
            "status": {"allocatable": {"cpu": "4", "memory": "4Gi", "pods": "110"}},
        }))
        .unwrap();
        Candidate { allocatable: allocatable(&node), node: Rc::new(node), load: Load::default() }
    }

    fn chosen(pod: &Pod, candidates: &[Candidate]) -> String {
        let all: Vec<&Candidate> = candidates.iter().collect();
        best(pod, &all, candidates).unwrap().node.metadata.name.clone().unwrap()
    }

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_emptier_node_wins_and_equals_go_by_name() {
        let plain = pod(json!({"spec": {"containers": [{"name": "c"}]}}));
        let mut nodes = [candidate("node-1", json!({})), candidate("node-2", json!({}))];
        assert_eq!(chosen(&plain, &nodes), "node-1");
        let big =
            pod(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}}));
        nodes[0].load.weighed = requested(&big);
        assert_eq!(chosen(&plain, &nodes), "node-2");
    }

    #[test]
    fn siblings_are_spread() {
        let sibling = pod(json!({
            "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true}]},
            "spec": {"containers": [{"name": "c"}]},
        }));
        let mut nodes = [candidate("node-1", json!({})), candidate("node-2", json!({}))];
        nodes[0].load.owners.insert("u".into(), 1);
        assert_eq!(chosen(&sibling, &nodes), "node-2");
    }

    #[test]
    fn soft_taints_and_preferences_count() {
        let soft = json!({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]});
        let nodes = [candidate("node-1", soft), candidate("node-2", json!({}))];
        let plain = pod(json!({"spec": {"containers": [{"name": "c"}]}}));
        assert_eq!(chosen(&plain, &nodes), "node-2");
        let nodes = [candidate("node-1", json!({})), candidate("node-2", json!({}))];
        let prefers = pod(json!({"spec": {"containers": [], "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "preference":
                {"matchExpressions": [{"key": "name", "operator": "In", "values": ["node-2"]}]}}]}}}}));
        assert_eq!(chosen(&prefers, &nodes), "node-2");
    }
}
