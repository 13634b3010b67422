//! The watch cache: every live object and the recent history, in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::engine::Engine;
use super::record::Record;
use super::{Entry, Event, Page, Revision, StoreError};

/// All buckets.
pub struct Cache {
    buckets: RwLock<HashMap<Box<str>, Arc<Bucket>>>,
    committed: AtomicU64,
    compacted: AtomicU64,
    /// Dropped at close, which ends every watch.
    alive: RwLock<Option<watch::Sender<()>>>,
}

/// One resource's objects, sorted by key, and its events since the last compaction.
pub struct Bucket {
    pub name: Box<str>,
    state: RwLock<State>,
    changed: watch::Sender<Revision>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Arc<str>, Entry>,
    events: VecDeque<Arc<Event>>,
    last_change: Revision,
}

impl Cache {
    /// Rebuilds the cache from the log.
    pub fn load(engine: &mut dyn Engine) -> Result<Self, StoreError> {
        let cache = Self {
            buckets: RwLock::default(),
            // Revision 1 is the empty store, as in etcd; the first write is 2.
            committed: AtomicU64::new(1),
            compacted: AtomicU64::new(0),
            alive: RwLock::new(Some(watch::channel(()).0)),
        };
        let compacted = engine.load(&mut |record| cache.apply(record)).map_err(StoreError::Io)?;
        // A deletion's record may be forgotten; its revision must not be given out again.
        cache.committed.fetch_max(compacted, Ordering::AcqRel);
        let superseded = cache.forget(compacted);
        engine.compact(&superseded, compacted).map_err(StoreError::Io)?;
        Ok(cache)
    }

    pub fn revision(&self) -> Revision {
        self.committed.load(Ordering::Acquire)
    }

    /// The oldest revision that can still be asked for.
    pub fn oldest(&self) -> Revision {
        self.compacted.load(Ordering::Acquire)
    }

    pub fn existing(&self, name: &str) -> Option<Arc<Bucket>> {
        self.buckets.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The bucket of this name, made on first use.
    pub fn bucket(&self, name: &str) -> Arc<Bucket> {
        if let Some(bucket) = self.existing(name) {
            return bucket;
        }
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        let make =
            || Arc::new(Bucket { name: name.into(), state: RwLock::default(), changed: watch::channel(0).0 });
        buckets.entry(name.into()).or_insert_with(make).clone()
    }

    /// Takes in one committed change and wakes the bucket's watchers.
    pub fn apply(&self, record: Record) {
        let bucket = self.bucket(&record.bucket);
        let revision = record.revision;
        bucket.apply(record);
        self.committed.fetch_max(revision, Ordering::AcqRel);
        bucket.changed.send_replace(revision);
    }

    /// Drops history up to `upto`; returns the log's records that nothing needs any more.
    pub fn forget(&self, upto: Revision) -> Vec<Revision> {
        self.compacted.fetch_max(upto, Ordering::AcqRel);
        let buckets: Vec<_> =
            self.buckets.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        buckets.iter().flat_map(|bucket| bucket.forget(upto)).collect()
    }

    /// Resolves when the store closes; `None` if it has.
    pub fn alive(&self) -> Option<watch::Receiver<()>> {
        let alive = self.alive.read().unwrap_or_else(PoisonError::into_inner);
        alive.as_ref().map(watch::Sender::subscribe)
    }

    pub fn close(&self) {
        self.alive.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Bucket {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.read().entries.get(key).cloned()
    }

    pub fn last_change(&self) -> Revision {
        self.read().last_change
    }

    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.changed.subscribe()
    }

    fn apply(&self, record: Record) {
        let mut state = self.write();
        let key: Arc<str> = match state.entries.get_key_value(record.key.as_str()) {
            Some((key, _)) => key.clone(),
            None => record.key.as_str().into(),
        };
        let entry = Entry {
            key: key.clone(),
            value: record.value,
            create_revision: record.create_revision,
            mod_revision: record.revision,
            revision_at: record.revision_at,
        };
        let previous = match record.deleted {
            true => state.entries.remove(&key),
            false => state.entries.insert(key, entry.clone()),
        };
        state.last_change = record.revision;
        state.events.push_back(Arc::new(Event::new(entry, previous, record.deleted)));
    }

    fn forget(&self, upto: Revision) -> Vec<Revision> {
        let mut state = self.write();
        let gone = state.events.partition_point(|event| event.revision <= upto);
        let mut superseded = Vec::new();
        for event in state.events.drain(..gone) {
            superseded.extend(event.previous.as_ref().map(|previous| previous.mod_revision));
            superseded.extend(event.deleted.then_some(event.revision));
        }
        state.events.shrink_to(64);
        superseded
    }

    /// Events after `from`, and the revision up to which they are complete.
    pub fn events_after(&self, cache: &Cache, from: Revision) -> (Vec<Arc<Event>>, Revision) {
        let state = self.read();
        // Read under the lock: every change up to `committed` is in `events` already.
        let complete = cache.revision().max(state.last_change);
        let first = state.events.partition_point(|event| event.revision <= from);
        (state.events.range(first..).cloned().collect(), complete)
    }

    pub fn list(
        &self,
        cache: &Cache,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let state = self.read();
        let current = cache.revision().max(state.last_change);
        let Some(at) = at.filter(|at| *at < state.last_change) else {
            return match at {
                Some(asked) if asked > current => Err(StoreError::Future { asked, current }),
                _ => Ok(page(&state.entries, prefix, after, limit, at.unwrap_or(current))),
            };
        };
        let oldest = cache.oldest();
        if at < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let mut entries = state.entries.clone();
        for event in state.events.iter().rev().take_while(|event| event.revision > at) {
            match &event.previous {
                Some(previous) => entries.insert(previous.key.clone(), previous.clone()),
                None => entries.remove(&event.entry.key),
            };
        }
        Ok(page(&entries, prefix, after, limit, at))
    }
}

fn page(
    entries: &BTreeMap<Arc<str>, Entry>,
    prefix: &str,
    after: Option<&str>,
    limit: Option<usize>,
    revision: Revision,
) -> Page {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut matching = entries
        .range::<str, _>((start, Bound::Unbounded))
        .map(|(_, entry)| entry)
        .take_while(|entry| entry.key.starts_with(prefix));
    let entries: Vec<Entry> = matching.by_ref().take(limit.unwrap_or(usize::MAX)).cloned().collect();
    let remaining = if limit.is_some() { matching.count() } else { 0 };
    Page { entries, revision, remaining }
}
