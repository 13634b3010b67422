//! A work queue of keys (client-go's rate-limited work queue).
//!
//! A key waits at most once, is never worked on twice at a time, and after a failure comes back with
//! a growing delay. A key added while it is being worked on runs once more afterwards.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::ControllersError;

/// What a sync wants next for its key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Nothing until something changes.
    Done,
    /// Look again after this long.
    After(Duration),
    /// Not yet possible; look again soon, with growing delays, without a complaint in the log.
    Soon,
}

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LAST_DELAY: Duration = Duration::from_secs(10);

#[derive(Default)]
struct State {
    ready: VecDeque<String>,
    waiting: HashSet<String>,
    running: HashSet<String>,
    /// Keys added while they were running.
    again: HashSet<String>,
    later: BinaryHeap<Reverse<(Instant, String)>>,
    failures: HashMap<String, u32>,
}

/// The queue; cloning shares it.
#[derive(Clone, Default)]
pub struct Queue(Rc<Shared>);

#[derive(Default)]
struct Shared {
    state: RefCell<State>,
    wake: Notify,
}

impl Queue {
    pub fn add(&self, key: impl Into<String>) {
        self.0.state.borrow_mut().add(key.into());
        self.0.wake.notify_one();
    }

    /// Works for ever: up to `parallel` keys at a time through `sync`.
    pub async fn work<F, Done, E>(self, name: &'static str, parallel: usize, sync: F)
    where
        F: Fn(String) -> Done,
        Done: Future<Output = Result<Next, E>>,
        E: Into<ControllersError>,
    {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < parallel {
                let Some(key) = self.0.state.borrow_mut().take(Instant::now()) else { break };
                let work = sync(key.clone());
                running.push(async move { (key, work.await) });
            }
            let next = self.0.state.borrow().later.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                Some((key, outcome)) = running.next(), if !running.is_empty() => {
                    self.settle(name, key, outcome.map_err(Into::into));
                }
                () = self.0.wake.notified() => {}
                () = until(next) => {}
            }
        }
    }

    fn settle(&self, name: &str, key: String, outcome: Result<Next, ControllersError>) {
        let mut state = self.0.state.borrow_mut();
        state.finish(&key);
        let delay = match outcome {
            Ok(Next::Done) => {
                state.failures.remove(&key);
                return;
            }
            Ok(Next::After(delay)) => {
                state.failures.remove(&key);
                delay
            }
            Ok(Next::Soon) => state.next_delay(&key),
            Err(error) => {
                let delay = state.next_delay(&key);
                // Lost races and a restarting API server are daily life: only what stays is worth a warning.
                match state.failures.get(&key) {
                    Some(6) => warn!(controller = name, key, %error, "sync keeps failing"),
                    _ => debug!(controller = name, key, %error, "sync failed"),
                }
                delay
            }
        };
        state.later.push(Reverse((Instant::now() + delay, key)));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl State {
    fn add(&mut self, key: String) {
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn take(&mut self, now: Instant) -> Option<String> {
        while self.later.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            if let Some(Reverse((_, key))) = self.later.pop() {
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn finish(&mut self, key: &str) {
        self.running.remove(key);
        if let Some(key) = self.again.take(key) {
            self.add(key);
        }
    }

    fn next_delay(&mut self, key: &str) -> Duration {
        let failures = self.failures.entry(key.to_owned()).or_default();
        let delay = FIRST_DELAY * 2_u32.saturating_pow((*failures).min(20));
        *failures += 1;
        delay.min(LAST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_runs_once_at_a_time() {
        let mut state = State::default();
        state.add("a".into());
        state.add("a".into());
        let now = Instant::now();
        assert_eq!(state.take(now).as_deref(), Some("a"));
        assert_eq!(state.take(now), None);
        state.add("a".into());
        assert_eq!(state.take(now), None, "it is being worked on");
        state.finish("a");
        assert_eq!(state.take(now).as_deref(), Some("a"));
    }

    #[test]
    fn failures_double_the_delay_up_to_a_limit() {
        let mut state = State::default();
        let delays: Vec<u128> = (0..4).map(|_| state.next_delay("a").as_millis()).collect();
        assert_eq!(delays, [5, 10, 20, 40]);
        let later = (0..40).map(|_| state.next_delay("a")).last();
        assert_eq!(later, Some(LAST_DELAY));
    }
}
