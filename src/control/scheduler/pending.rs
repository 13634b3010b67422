//! Pods that wait: for their turn, or for the cluster to change (the scheduling queue).
//!
//! ```text
//!            added                 nobody can take it
//!   (new) ─────────► active ──────────────────────────► stuck
//!                      ▲                                  │ the cluster changed
//!                      └──────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::Pod;

use crate::client::informer::key_of;

/// Keys in the order they will be tried: higher priority first, then first come.
#[derive(Default)]
pub struct Pending {
    active: BTreeMap<(std::cmp::Reverse<i32>, u64), String>,
    queued: HashSet<String>,
    /// Each with its priority and whether other pods could be the reason.
    stuck: BTreeMap<String, (i32, bool)>,
    arrivals: u64,
}

pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

fn minds_others(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        let near = spec.affinity.as_ref().is_some_and(|affinity| affinity.pod_affinity.is_some());
        near || spec.topology_spread_constraints.as_ref().is_some_and(|all| !all.is_empty())
    })
}

impl Pending {
    pub fn add(&mut self, pod: &Pod) {
        self.stuck.remove(&key_of(pod));
        self.push(key_of(pod), priority(pod));
    }

    fn push(&mut self, key: String, priority: i32) {
        if self.queued.insert(key.clone()) {
            self.arrivals += 1;
            self.active.insert((std::cmp::Reverse(priority), self.arrivals), key);
        }
    }

    pub fn next(&mut self) -> Option<String> {
        let (_, key) = self.active.pop_first()?;
        self.queued.remove(&key);
        Some(key)
    }

    /// Nobody can take this pod now.
    pub fn stuck(&mut self, pod: &Pod) {
        self.stuck.insert(key_of(pod), (priority(pod), minds_others(pod)));
    }

    pub fn forget(&mut self, key: &str) {
        self.stuck.remove(key);
        if self.queued.remove(key) {
            self.active.retain(|_, known| known != key);
        }
    }

    /// The cluster changed: those who were stuck are worth another look.
    pub fn retry(&mut self) -> bool {
        let stuck = std::mem::take(&mut self.stuck);
        let any = !stuck.is_empty();
        stuck.into_iter().for_each(|(key, (priority, _))| self.push(key, priority));
        any
    }

    /// A pod came somewhere: those who want to be near one, or as many as elsewhere, look again.
    pub fn retry_neighbours(&mut self) -> bool {
        let minding: Vec<String> =
            self.stuck.iter().filter(|(_, (_, minds))| *minds).map(|(key, _)| key.clone()).collect();
        for key in &minding {
            if let Some((priority, _)) = self.stuck.remove(key) {
                self.push(key.clone(), priority);
            }
        }
        !minding.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"containers": [], "priority": priority}}),
        )
        .unwrap()
    }

    #[test]
    fn the_important_go_first_then_the_first_to_come() {
        let mut pending = Pending::default();
        for (name, priority) in [("a", 0), ("b", 0), ("urgent", 9)] {
            pending.add(&pod(name, priority));
        }
        let order: Vec<String> = std::iter::from_fn(|| pending.next()).collect();
        assert_eq!(order, ["urgent", "a", "b"]);
    }

    #[test]
    fn the_stuck_wait_for_a_change() {
        let mut pending = Pending::default();
        pending.stuck(&pod("a", 0));
        assert_eq!(pending.next(), None);
        assert!(pending.retry());
        assert_eq!(pending.next().as_deref(), Some("a"));
        assert!(!pending.retry());
    }
}
