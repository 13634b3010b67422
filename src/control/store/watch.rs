//! A watch: a cursor on a bucket's history. Nothing is queued for a watcher, so a slow one costs nothing.

use std::sync::Arc;

use tokio::sync::watch::Receiver;

use super::cache::{Bucket, Cache};
use super::{Event, Revision, StoreError};

/// Events of one bucket after a revision, in order.
pub struct Watch {
    cache: Arc<Cache>,
    bucket: Arc<Bucket>,
    at: Revision,
    changed: Receiver<Revision>,
    alive: Receiver<()>,
}

impl Watch {
    pub(super) fn start(cache: Arc<Cache>, bucket: Arc<Bucket>, from: Revision) -> Result<Self, StoreError> {
        let changed = bucket.subscribe();
        let alive = cache.alive().ok_or(StoreError::Closed)?;
        let current = cache.revision().max(bucket.last_change());
        if from > current {
            return Err(StoreError::Future { asked: from, current });
        }
        let watch = Self { cache, bucket, at: from, changed, alive };
        watch.check_history().map(|()| watch)
    }

    /// The events since the last call, at least one; waits for them.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when this watch fell behind a compaction, [`StoreError::Closed`] when
    /// the store closed and everything before that was delivered.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, StoreError> {
        loop {
            self.changed.borrow_and_update();
            let events = self.pending()?;
            if !events.is_empty() {
                return Ok(events);
            }
            tokio::select! {
                changed = self.changed.changed() => changed.map_err(|_| StoreError::Closed)?,
                _ = self.alive.changed() => {
                    let last = self.pending()?;
                    return if last.is_empty() { Err(StoreError::Closed) } else { Ok(last) };
                }
            }
        }
    }

    /// Everything up to this revision has been delivered: what a bookmark may say.
    pub fn revision(&self) -> Revision {
        self.at
    }

    /// Moves the cursor over what other buckets committed, if nothing is pending here; then a bookmark
    /// can be as new as the store.
    pub fn catch_up(&mut self) -> Revision {
        let (events, complete) = self.bucket.events_after(&self.cache, self.at);
        if events.is_empty() {
            self.at = self.at.max(complete);
        }
        self.at
    }

    fn pending(&mut self) -> Result<Vec<Arc<Event>>, StoreError> {
        let (events, _) = self.bucket.events_after(&self.cache, self.at);
        // After the read: a compaction in between is then noticed.
        self.check_history()?;
        if let Some(last) = events.last() {
            self.at = last.revision;
        }
        Ok(events)
    }

    /// Whether the history after the cursor is whole. A quiet bucket loses nothing in a compaction.
    fn check_history(&self) -> Result<(), StoreError> {
        let oldest = self.cache.oldest();
        match self.at < oldest && self.at < self.bucket.last_change() {
            true => Err(StoreError::Compacted { oldest }),
            false => Ok(()),
        }
    }
}
