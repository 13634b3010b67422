//! What a pod's worker remembers beside what the shims know: delays, failures, probe results.
//!
//! All of it may be lost at any time with the process; upstream's kubelet forgets the same.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `CrashLoopBackOff`: 10 s doubling to 5 minutes.
const FIRST: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(300);

/// A doubling delay with upstream's rules (`client-go/util/flowcontrol`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Delay {
    current: Option<(Duration, Timestamp)>,
}

impl Delay {
    /// How long to wait from now, counted from `event`; nothing when it is over.
    pub fn left(&self, event: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let (delay, updated) = self.current?;
        let until = event.saturating_add(SignedDuration::try_from(delay).ok()?).ok()?;
        (!forgotten(updated, event) && now < until).then_some(until)
    }

    /// The delay that holds now, for messages.
    pub fn length(&self) -> Duration {
        self.current.map_or(Duration::ZERO, |(delay, _)| delay)
    }

    /// Called when trying again.
    pub fn advance(&mut self, now: Timestamp) {
        let delay = match self.current {
            Some((delay, updated)) if !forgotten(updated, now) => (delay * 2).min(LAST),
            _ => FIRST,
        };
        self.current = Some((delay, now));
    }
}

/// After twice the longest delay without trouble it starts anew.
fn forgotten(updated: Timestamp, event: Timestamp) -> bool {
    event.duration_since(updated).as_secs() > 2 * i64::try_from(LAST.as_secs()).unwrap_or(i64::MAX)
}

/// Why a container could not be started, and when to try again.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `ErrImagePull`, `CreateContainerConfigError`, …
    pub reason: &'static str,
    pub message: String,
    pub since: Timestamp,
    pub retry_at: Timestamp,
    pub tries: u32,
}

/// What probes found of one running container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// Of this container.
    pub id: String,
    /// Startup probe: passed. Without one, true.
    pub started: bool,
    /// Readiness probe: the last verdict. Without one, true.
    pub ready: bool,
    /// Liveness or startup probe failed for good: what to say in the event.
    pub unhealthy: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerMemory {
    pub crashes: Delay,
    pub failure: Option<Failure>,
    pub health: Option<Health>,
}

#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub containers: BTreeMap<String, ContainerMemory>,
    /// Containers being stopped, by id: until when at most.
    pub stopping: BTreeMap<String, Timestamp>,
    /// Not admitted: reason and message.
    pub rejected: Option<(String, String)>,
    /// The pod's volumes are in place since this process started.
    pub volumes_ready: bool,
    /// No attempt to make a sandbox or volumes before.
    pub retry_at: Option<Timestamp>,
    pub tries: u32,
    /// What containers left in their termination message, by id.
    pub messages: BTreeMap<String, String>,
}

impl Memory {
    pub fn container(&self, name: &str) -> Option<&ContainerMemory> {
        self.containers.get(name)
    }

    pub fn of(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Probe results of this very container.
    pub fn health(&self, name: &str, id: &str) -> Option<&Health> {
        self.container(name)?.health.as_ref().filter(|health| health.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn the_first_restart_is_at_once_then_ten_seconds_doubling_to_five_minutes() {
        let mut delay = Delay::default();
        assert_eq!(delay.left(at(0), at(0)), None);
        let mut now = 0;
        for expected in [10, 20, 40, 80, 160, 300, 300] {
            delay.advance(at(now));
            assert_eq!(delay.left(at(now), at(now)), Some(at(now + expected)));
            now += expected;
            assert_eq!(delay.left(at(now - expected), at(now)), None);
        }
        delay.advance(at(now + 1000));
        assert_eq!(delay.length(), Duration::from_secs(10));
    }
}
