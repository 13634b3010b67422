//! How every role reconnects: at once, then from 10 ms doubling to 1 s, with jitter.

use std::time::Duration;

use kube::runtime::utils::Backoff as KubeBackoff;

const FIRST: Duration = Duration::from_millis(10);
const LAST: Duration = Duration::from_secs(1);

/// An endless series of delays: 0, ~10 ms, ~20 ms, … ~1 s. For `watcher(..).backoff(Backoff::new())` and loops.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    /// The next delay before jitter; zero at the start.
    next: Duration,
}

impl Backoff {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sleeps for the next delay.
    pub async fn wait(&mut self) {
        let delay = self.next().unwrap_or(LAST);
        tokio::time::sleep(delay).await;
    }

    /// Back to "at once", after something worked.
    pub fn reset(&mut self) {
        self.next = Duration::ZERO;
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.next;
        self.next = (delay * 2).clamp(FIRST, LAST);
        Some(delay.mul_f64(jitter()))
    }
}

impl KubeBackoff for Backoff {
    fn reset(&mut self) {
        self.next = Duration::ZERO;
    }
}

/// Between 0.75 and 1.25: enough that roles do not come back in step.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    // Each RandomState hashes by fresh keys, which is randomness enough here.
    let random = RandomState::new().hash_one(0u8) & 0xffff;
    0.75 + f64::from(u32::try_from(random).unwrap_or_default()) / f64::from(0xffffu32) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_start_at_once_and_settle_around_a_second() {
        let delays: Vec<Duration> = Backoff::new().take(20).collect();
        assert_eq!(delays[0], Duration::ZERO);
        assert!(delays[1] >= FIRST.mul_f64(0.74) && delays[1] <= FIRST.mul_f64(1.26));
        assert!(delays[19] >= LAST.mul_f64(0.74) && delays[19] <= LAST.mul_f64(1.26));
    }
}
