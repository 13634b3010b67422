//! Making room for a pod that matters more (the DefaultPreemption plugin).
//!
//! On every node where it could help, the fewest and least important pods that have to go are found; the node
//! where they matter least is chosen. Left out: disruption budgets are not weighed against each other.

use std::cmp::Reverse;
use std::rc::Rc;

use k8s_openapi::api::core::v1::Pod;

use super::cluster::{Candidate, uid};
use super::filter::Refusal;
use super::pending::priority;

/// Who has to go from where.
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Rc<Pod>>,
}

/// Whether a pod may make others go.
pub fn may_preempt(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    policy != Some("Never")
}

/// The best preemption there is, where `check` says whether the pod fits one of the nodes as given.
pub fn find(
    pod: &Pod,
    all: &[Candidate],
    refused: &[(usize, Refusal)],
    check: impl Fn(&Candidate, &[Candidate]) -> bool,
) -> Option<Preemption> {
    let mut found: Vec<Preemption> = Vec::new();
    for (index, _) in refused.iter().filter(|(_, refusal)| refusal.resolvable) {
        let mut world: Vec<Candidate> = all.to_vec();
        let mut lesser: Vec<Rc<Pod>> =
            world[*index].load.here.iter().filter(|one| priority(one) < priority(pod)).cloned().collect();
        if lesser.is_empty() {
            continue;
        }
        lesser.iter().for_each(|one| world[*index].load.remove(one));
        if !check(&world[*index], &world) {
            continue;
        }
        // The more important stay if they can, then the older.
        lesser.sort_by_key(|one| (Reverse(priority(one)), one.metadata.creation_timestamp.clone()));
        let mut victims = Vec::new();
        for one in lesser {
            world[*index].load.add(&one);
            if !check(&world[*index], &world) {
                world[*index].load.remove(&one);
                victims.push(one);
            }
        }
        let node = world[*index].node.metadata.name.clone().unwrap_or_default();
        found.push(Preemption { node, victims });
    }
    found.into_iter().min_by_key(|one| {
        let highest = one.victims.iter().map(|victim| priority(victim)).max();
        let sum: i64 =
            one.victims.iter().map(|victim| i64::from(priority(victim)) + i64::from(i32::MAX)).sum();
        (highest, sum, one.victims.len(), one.node.clone())
    })
}

/// The event every victim gets.
pub fn said(by: &Pod, node: &str) -> String {
    format!("Preempted by pod {} on node {node}", uid(by))
}
