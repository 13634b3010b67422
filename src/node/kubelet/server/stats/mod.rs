//! What the node and its pods use: the numbers behind `/stats/summary`, `/metrics/cadvisor` and
//! `/metrics/resource`.
//!
//! Stands for cAdvisor, which samples cgroups every ten seconds. Nothing is sampled here until somebody asks;
//! a rate is what happened since the last question, or in a tenth of a second where that is too long ago.

mod disk;
pub mod proc;
mod summary;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::node::shim::{ContainerPhase, Runtime, SandboxStatus};
use proc::{Interface, Snapshot, Usage, interfaces};
pub use summary::summary;

/// A rate is told over at least this long …
const LEAST: Duration = Duration::from_millis(100);
/// … and at most this.
const MOST: Duration = Duration::from_secs(60);

/// One look at everything.
#[derive(Debug)]
pub struct Sample {
    pub at: Timestamp,
    pub node: Metered,
    /// Of the kubelet alone.
    pub kubelet: Metered,
    pub pods: Vec<PodSample>,
    pub interfaces: Vec<Interface>,
}

/// What is used, and how fast the CPU time grows.
#[derive(Debug, Clone, Default)]
pub struct Metered {
    pub usage: Usage,
    pub nano_cores: u64,
}

#[derive(Debug)]
pub struct PodSample {
    pub sandbox: SandboxStatus,
    pub all: Metered,
    pub containers: Vec<ContainerSample>,
    pub interfaces: Vec<Interface>,
}

#[derive(Debug)]
pub struct ContainerSample {
    pub status: crate::node::shim::ContainerStatus,
    pub used: Metered,
}

/// Takes samples and remembers the last one. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Sampler(Arc<Mutex<Option<Arc<Past>>>>);

#[derive(Debug)]
struct Past {
    taken: Instant,
    node: Snapshot,
}

impl Sampler {
    /// Looks now.
    pub async fn sample(&self, runtime: &Runtime) -> Sample {
        let kept = self.0.lock().expect("nothing panics while holding the lock").clone();
        let base = match kept.filter(|past| (LEAST..MOST).contains(&past.taken.elapsed())) {
            Some(past) => past,
            None => {
                let past = Arc::new(look().await);
                tokio::time::sleep(LEAST).await;
                past
            }
        };
        let now = Arc::new(look().await);
        *self.0.lock().expect("nothing panics while holding the lock") = Some(Arc::clone(&now));
        let mut sandboxes = runtime.known_sandboxes();
        sandboxes.retain(|sandbox| sandbox.ready);
        let between = Between { base: &base, now: &now };
        Sample {
            at: Timestamp::now(),
            node: between.node(),
            kubelet: between.of(std::process::id()).unwrap_or_default(),
            pods: sandboxes.into_iter().map(|sandbox| between.pod(sandbox)).collect(),
            interfaces: interfaces(std::process::id()),
        }
    }
}

/// /proc is read off this thread: there may be many processes.
async fn look() -> Past {
    let node = tokio::task::spawn_blocking(Snapshot::take).await.unwrap_or_default();
    Past { taken: Instant::now(), node }
}

/// Two looks, some time apart.
struct Between<'a> {
    base: &'a Past,
    now: &'a Past,
}

impl Between<'_> {
    fn node(&self) -> Metered {
        self.metered(&self.now.node.node, Some(&self.base.node.node))
    }

    /// The processes that share the mount namespace of this one.
    fn of(&self, pid: u32) -> Option<Metered> {
        let usage = self.now.node.container(pid)?;
        Some(self.metered(usage, self.base.node.container(pid)))
    }

    fn pod(&self, sandbox: SandboxStatus) -> PodSample {
        let running = sandbox.containers.iter().filter(|one| one.phase == ContainerPhase::Running);
        let containers: Vec<ContainerSample> = running
            .filter_map(|status| {
                Some(ContainerSample { used: self.of(status.pid?)?, status: status.clone() })
            })
            .collect();
        let mut all = Metered::default();
        for container in &containers {
            all.usage.join(&container.used.usage);
            all.nano_cores += container.used.nano_cores;
        }
        let interfaces = containers.first().and_then(|one| one.status.pid).map(interfaces);
        PodSample { sandbox, all, interfaces: interfaces.unwrap_or_default(), containers }
    }

    fn metered(&self, now: &Usage, base: Option<&Usage>) -> Metered {
        let spent = now.cpu_nanos.saturating_sub(base.map_or(now.cpu_nanos, |base| base.cpu_nanos));
        let passed = self.now.taken.saturating_duration_since(self.base.taken).as_nanos().max(1);
        let nano_cores = u128::from(spent) * 1_000_000_000 / passed;
        Metered { usage: now.clone(), nano_cores: u64::try_from(nano_cores).unwrap_or(u64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_spent_by_the_time_that_passed() {
        let start = Instant::now();
        let past = |millis: u64, nanos: u64| Past {
            taken: start + Duration::from_millis(millis),
            node: Snapshot { node: Usage { cpu_nanos: nanos, ..Usage::default() }, ..Snapshot::default() },
        };
        let (base, now) = (past(0, 1_000_000_000), past(500, 1_250_000_000));
        let node = Between { base: &base, now: &now }.node();
        assert_eq!(node.nano_cores, 500_000_000, "a quarter second in half a second is half a core");
        let backwards = Between { base: &now, now: &past(600, 1_000_000_000) }.node();
        assert_eq!(backwards.nano_cores, 0);
    }
}
