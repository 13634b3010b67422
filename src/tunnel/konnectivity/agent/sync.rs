//! Staying connected: one stream to every server there is (`pkg/agent/clientset.go`).
//!
//! One address leads to any of them, so a try may land on one that is already connected; that stream is let
//! go and the next interval tries again. Failures wait longer each time, up to a cap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::connect::{Joined, Road};
use super::counts::Counts;
use super::leases::Leases;
use super::session::Session;
use crate::tunnel::konnectivity::packet::Message;

/// Every server this agent is connected to.
pub struct Servers {
    pub counts: Arc<Counts>,
    road: Road,
    interval: Duration,
    cap: Duration,
    forever: bool,
    leases: Option<Leases>,
    largest: bool,
    connected: Mutex<HashMap<String, Arc<Session>>>,
    /// What the last new server said of their number.
    said: Mutex<usize>,
    /// A stream ended: do not wait for the interval.
    lost: Notify,
    draining: AtomicBool,
}

/// What one try came to.
enum Try {
    New,
    /// A server that is connected already.
    Known,
    Failed,
}

impl Servers {
    pub fn new(
        road: Road,
        flags: &super::flags::Flags,
        leases: Option<Leases>,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            counts,
            road,
            interval: flags.sync_interval,
            cap: flags.sync_interval_cap,
            forever: flags.sync_forever,
            largest: flags.server_count_source == "max",
            leases,
            connected: Mutex::default(),
            said: Mutex::new(1),
            lost: Notify::new(),
            draining: AtomicBool::new(false),
        })
    }

    pub fn connected(&self) -> usize {
        self.connected.lock().expect("nothing panics while holding the lock").len()
    }

    fn wanted(&self) -> usize {
        let said = *self.said.lock().expect("nothing panics while holding the lock");
        match &self.leases {
            None => said,
            Some(leases) if self.largest => leases.count().max(said),
            Some(leases) => leases.count(),
        }
    }

    /// Tells every server that no new dials should come, and makes no new connections.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        let connected = self.connected.lock().expect("nothing panics while holding the lock");
        for session in connected.values() {
            // One that has just ended needs no telling.
            let _ = session.tell(Message::Drain);
        }
    }

    /// Keeps connected, for ever.
    pub async fn keep(self: Arc<Self>) {
        let mut delay = self.interval;
        loop {
            let outcome = self.attempt().await;
            delay = match outcome {
                Some(Try::Failed) => delay.mul_f64(1.5).min(self.cap),
                _ => self.interval,
            };
            // Several servers may be there to be found: the next one at once after a new one.
            if matches!(outcome, Some(Try::New)) && self.connected() < self.wanted() {
                continue;
            }
            let lost = self.lost.notified();
            let waits = delay.mul_f64(jitter());
            match outcome {
                // A server that cannot be reached is not reached sooner for a stream's end.
                Some(Try::Failed) => tokio::time::sleep(waits).await,
                _ => {
                    let _ = tokio::time::timeout(waits, lost).await;
                }
            }
        }
    }

    async fn attempt(self: &Arc<Self>) -> Option<Try> {
        let (have, want) = (self.connected(), self.wanted());
        self.counts.known_servers.add(want as i64 - self.counts.known_servers.get());
        if self.draining.load(Ordering::Acquire) || (have >= want && !self.forever) {
            return None;
        }
        let end = CancellationToken::new();
        match self.road.join(&self.counts, &end).await {
            Ok(joined) => Some(self.adopt(joined, end)),
            Err(error) => {
                tracing::error!(error, "cannot connect once");
                Some(Try::Failed)
            }
        }
    }

    fn adopt(self: &Arc<Self>, joined: Joined, end: CancellationToken) -> Try {
        let Joined { server, session, incoming, connection } = joined;
        let mut connected = self.connected.lock().expect("nothing panics while holding the lock");
        if connected.contains_key(&server.id) {
            end.cancel();
            return Try::Known;
        }
        *self.said.lock().expect("nothing panics while holding the lock") = server.count;
        connected.insert(server.id.clone(), Arc::clone(&session));
        drop(connected);
        tracing::info!(serverID = server.id, credits = ?server.credits, "Connected to the proxy server");
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let _counted = this.counts.servers.held();
            let reason = session.serve(incoming).await;
            drop(connection);
            this.connected.lock().expect("nothing panics while holding the lock").remove(&server.id);
            tracing::info!(serverID = server.id, reason, "Disconnected from the proxy server");
            this.lost.notify_one();
        });
        Try::New
    }
}

/// Between 1 and 1.1, as upstream: agents that lost the same server do not come back in step.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = (RandomState::new().hash_one(0u8) & 0xffff) as f64;
    1.0 + random / f64::from(0xffffu32) / 10.0
}
