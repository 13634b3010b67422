//! The store: one ordered log of revisions with etcd's semantics, and the watch cache above it.
//!
//! Keys are grouped in buckets, one a resource (`/registry/pods/`); within one, keys read
//! `NAMESPACE/NAME` or `NAME`. Reads and watches are answered from memory; a write is acknowledged when
//! it is on disk. Upstream keeps the two in separate programs (etcd, and the API server's watch cache);
//! here an [`Engine`] is the durable half.
//!
//! ```text
//!  write ──▶ queue ──▶ writer thread: check, number, append + flush one group ──▶ cache ──▶ watchers
//!  get, list, watch ◀──────────────────────────────────────────────────────────── cache
//! ```

mod cache;
mod engine;
mod record;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use cache::Cache;
pub use engine::{Engine, SledEngine};
pub use watch::Watch;
use writer::Request;

/// A revision of the whole store, as in etcd: every committed change takes the next number.
pub type Revision = u64;

/// One stored object at one revision.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Arc<str>,
    /// The object's JSON with its resourceVersion filled in.
    pub value: Bytes,
    pub create_revision: Revision,
    pub mod_revision: Revision,
    /// Where the resourceVersion's digits begin in `value`.
    revision_at: usize,
}

impl Entry {
    /// The same object carrying another revision, as watchers get it when it leaves their selector.
    fn at_revision(&self, revision: Revision) -> Vec<u8> {
        let digits = self.mod_revision.to_string().len();
        let mut value = Vec::with_capacity(self.value.len() + 4);
        value.extend_from_slice(&self.value[..self.revision_at]);
        value.extend_from_slice(revision.to_string().as_bytes());
        value.extend_from_slice(&self.value[self.revision_at + digits..]);
        value
    }
}

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Absent,
    /// The object as it was at this modification.
    Revision(Revision),
}

/// An encoded object whose resourceVersion is not known yet.
#[derive(Debug, Clone)]
pub struct Draft {
    /// JSON with an empty string for `metadata.resourceVersion`.
    pub bytes: Vec<u8>,
    /// Where the digits belong: between that string's quotes.
    pub revision_at: usize,
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    Put(Draft),
    /// The object's last state, which watchers are sent with the deletion's revision.
    Delete(Draft),
}

/// One committed change, as watchers see it.
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    /// The new state; for a deletion the last one, carrying the deletion's revision.
    pub entry: Entry,
    /// The state before, if the key existed.
    pub previous: Option<Entry>,
    pub deleted: bool,
    frames: [std::sync::OnceLock<Bytes>; 3],
}

/// How a change looks to one watcher; selectors can make a change look like an addition or a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    Added,
    Modified,
    Deleted,
}

impl Event {
    fn new(entry: Entry, previous: Option<Entry>, deleted: bool) -> Self {
        Self { revision: entry.mod_revision, entry, previous, deleted, frames: Default::default() }
    }

    /// The object this frame shows: the new state, or what the watcher is losing, at this revision.
    pub fn object(&self, frame: Frame) -> Bytes {
        match (frame, &self.previous) {
            (Frame::Deleted, Some(previous)) if !self.deleted => previous.at_revision(self.revision).into(),
            _ => self.entry.value.clone(),
        }
    }

    /// The line of a watch response, encoded once for all watchers.
    pub fn frame(&self, frame: Frame) -> Bytes {
        let (slot, name) = match frame {
            Frame::Added => (0, "ADDED"),
            Frame::Modified => (1, "MODIFIED"),
            Frame::Deleted => (2, "DELETED"),
        };
        let encode = || {
            let object = self.object(frame);
            let mut line = Vec::with_capacity(object.len() + 40);
            line.extend_from_slice(b"{\"type\":\"");
            line.extend_from_slice(name.as_bytes());
            line.extend_from_slice(b"\",\"object\":");
            line.extend_from_slice(&object);
            line.extend_from_slice(b"}\n");
            Bytes::from(line)
        };
        self.frames[slot].get_or_init(encode).clone()
    }
}

/// A consistent answer to a list.
#[derive(Debug, Clone)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision the whole list is at.
    pub revision: Revision,
    /// How many more follow after the last entry.
    pub remaining: usize,
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the key exists already")]
    Exists,
    #[error("the key does not exist")]
    Missing,
    #[error("the key was modified at revision {current}")]
    Modified { current: Revision },
    #[error("the revision was compacted; the oldest is {oldest}")]
    Compacted { oldest: Revision },
    #[error("revision {asked} is in the future; the store is at {current}")]
    Future { asked: Revision, current: Revision },
    #[error("the object has no place for its resource version")]
    Malformed,
    #[error("open the store {}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("write the store's log")]
    Io(#[source] std::io::Error),
    #[error("the store is closed")]
    Closed,
}

/// A handle on the open store; clones share it.
#[derive(Clone)]
pub struct Store {
    cache: Arc<Cache>,
    queue: std::sync::mpsc::Sender<Request>,
}

impl Store {
    /// Opens the embedded store in `dir`, waiting while another process still holds it.
    ///
    /// # Errors
    /// [`StoreError::Open`] when the directory cannot be used or its log does not read back.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let dir = dir.to_owned();
        Self::start(Box::new(move || {
            SledEngine::open(&dir).map(|engine| Box::new(engine) as Box<dyn Engine>)
        }))
    }

    /// Starts on an engine; `open` is called again to recover after an I/O error.
    fn start(open: writer::Open) -> Result<Self, StoreError> {
        let mut engine = open()?;
        let cache = Arc::new(Cache::load(engine.as_mut())?);
        let queue = writer::spawn(open, engine, cache.clone());
        Ok(Self { cache, queue })
    }

    /// The newest committed revision.
    pub fn revision(&self) -> Revision {
        self.cache.revision()
    }

    pub fn get(&self, bucket: &str, key: &str) -> Option<Entry> {
        self.cache.existing(bucket)?.get(key)
    }

    /// Entries whose keys start with `prefix` and sort after `after`, at most `limit` of them, as they
    /// are now or were at revision `at`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::Future`] for an `at` the store cannot answer.
    pub fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        self.cache.bucket(bucket).list(&self.cache, prefix, after, limit, at)
    }

    /// The revision of the bucket's last change: equal numbers mean an unchanged bucket.
    pub fn bucket_revision(&self, bucket: &str) -> Revision {
        self.cache.existing(bucket).map_or(0, |bucket| bucket.last_change())
    }

    /// Commits one change; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Missing`] or [`StoreError::Modified`] when `expect` does not
    /// hold; [`StoreError::Io`] when the disk refuses (the outcome is then unknown, as with etcd).
    pub async fn write(
        &self,
        bucket: &str,
        key: &str,
        expect: Option<Expect>,
        change: Change,
    ) -> Result<Entry, StoreError> {
        let (reply, answer) = oneshot::channel();
        let write =
            writer::Write { bucket: self.cache.bucket(bucket), key: key.into(), expect, change, reply };
        self.queue.send(Request::Write(write)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Events of a bucket after revision `from`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when events after `from` are gone; [`StoreError::Future`] when `from` is ahead.
    pub fn watch(&self, bucket: &str, from: Revision) -> Result<Watch, StoreError> {
        Watch::start(self.cache.clone(), self.cache.bucket(bucket), from)
    }

    /// Forgets history up to `revision`: lists at and watches from before it answer 410 from now on.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Request::Compact { revision, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Commits what is queued, ends every watch after its last event and releases the files.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Request::Close { reply }).is_ok() {
            // An error means the writer has ended already, which is what was asked for.
            let _ = answer.await;
        }
    }
}
