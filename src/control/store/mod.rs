//! The store: one ordered log of revisions with etcd's semantics, and the watch cache above it.
//!
//! Keys are grouped in buckets, one a resource (`/registry/pods/`); within one, keys read
//! `NAMESPACE/NAME` or `NAME`. Reads and watches are answered from memory; a write is acknowledged when
//! it is on disk.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

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

/// A consistent answer to a list.
#[derive(Debug, Clone)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision the whole list is at.
    pub revision: Revision,
    /// How many more follow after the last entry.
    pub remaining: usize,
}
