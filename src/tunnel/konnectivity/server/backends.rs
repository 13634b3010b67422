//! All agents that are connected, and which of them is asked.

use std::sync::{Arc, RwLock};

use super::backend::Backend;
use super::identifiers::{Strategy, host_of};

/// The connected agents' streams, the oldest first.
#[derive(Debug, Default)]
pub struct Backends {
    all: RwLock<Vec<Arc<Backend>>>,
}

impl Backends {
    pub fn add(&self, backend: Arc<Backend>) {
        self.all.write().expect("nothing panics while holding the lock").push(backend);
    }

    pub fn remove(&self, backend: &Arc<Backend>) {
        let mut all = self.all.write().expect("nothing panics while holding the lock");
        all.retain(|own| !Arc::ptr_eq(own, backend));
    }

    /// How many agents a strategy has to choose from.
    pub fn count(&self, strategy: Strategy) -> usize {
        let all = self.all.read().expect("nothing panics while holding the lock");
        let mut agents: Vec<&str> = all
            .iter()
            .filter(|own| strategy.admits(&own.identifiers))
            .map(|own| own.agent.as_str())
            .collect();
        agents.sort_unstable();
        agents.dedup();
        agents.len()
    }

    /// The agent for a destination: each strategy is asked in turn.
    pub fn choose(&self, strategies: &[Strategy], address: &str) -> Option<Arc<Backend>> {
        let all = self.all.read().expect("nothing panics while holding the lock");
        let host = host_of(address);
        strategies.iter().find_map(|strategy| of_strategy(&all, *strategy, host))
    }
}

fn of_strategy(all: &[Arc<Backend>], strategy: Strategy, host: &str) -> Option<Arc<Backend>> {
    let rank = |own: &Arc<Backend>| strategy.rank(&own.identifiers, host);
    let best = all.iter().filter_map(rank).max()?;
    let mut eligible: Vec<&Arc<Backend>> = Vec::new();
    for backend in all.iter().filter(|own| rank(own) == Some(best)) {
        // The younger stream of an agent is about to be closed by it.
        if !eligible.iter().any(|own| own.agent == backend.agent && strategy.is_random()) {
            eligible.push(backend);
        }
    }
    let first = match strategy.is_random() {
        true => super::random() as usize % eligible.len(),
        false => 0,
    };
    eligible.rotate_left(first);
    // A draining agent is better than none.
    let awake = eligible.iter().find(|own| !own.is_draining());
    awake.or(eligible.first()).map(|own| Arc::clone(own))
}
