//! The writer: one thread that checks, numbers and commits changes, a group at a time.
//!
//! While one group is being flushed the next gathers in the queue, so the disk's latency is shared by
//! all writers that wait. After an I/O error every write fails until the log was opened again and found
//! to agree with the cache; what it holds beyond that (a group whose flush failed late) is taken in then.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::cache::{Bucket, Cache};
use super::engine::Engine;
use super::record::Record;
use super::{Change, Draft, Entry, Expect, Revision, StoreError};

/// Opens the engine: at start, and again after an I/O error.
pub type Open = Box<dyn Fn() -> Result<Box<dyn Engine>, StoreError> + Send>;

/// At most this many changes in one flush.
const GROUP: usize = 512;
/// How long after a failed write the log is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

pub enum Request {
    Write(Write),
    Compact { revision: Revision, reply: oneshot::Sender<Result<(), StoreError>> },
    Close { reply: oneshot::Sender<()> },
}

pub struct Write {
    pub bucket: Arc<Bucket>,
    pub key: Box<str>,
    pub expect: Option<Expect>,
    pub change: Change,
    pub reply: oneshot::Sender<Result<Entry, StoreError>>,
}

/// Starts the thread; it ends when the store is closed or its last handle is gone.
pub fn spawn(open: Open, engine: Box<dyn Engine>, cache: Arc<Cache>) -> Sender<Request> {
    let (queue, requests) = channel();
    let writer = Writer { open, engine: Ok(engine), cache };
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || writer.run(&requests))
        .expect("a process that may start a server may start a thread");
    queue
}

struct Writer {
    open: Open,
    /// The engine, or when it failed.
    engine: Result<Box<dyn Engine>, Instant>,
    cache: Arc<Cache>,
}

/// A change that passed its check and has its revision.
struct Accepted {
    record: Record,
    entry: Entry,
    reply: oneshot::Sender<Result<Entry, StoreError>>,
}

impl Writer {
    fn run(mut self, requests: &Receiver<Request>) {
        let mut next = requests.recv().ok();
        while let Some(request) = next.take() {
            match request {
                Request::Write(first) => next = self.commit_group(first, requests),
                Request::Compact { revision, reply } => {
                    let _ = reply.send(self.compact(revision));
                }
                Request::Close { reply } => {
                    drop(self.engine);
                    self.cache.close();
                    let _ = reply.send(());
                    return;
                }
            }
            next = next.or_else(|| requests.recv().ok());
        }
        self.cache.close();
    }

    /// Commits `first` and what else is waiting; returns a request that is not a write, if one came up.
    fn commit_group(&mut self, first: Write, requests: &Receiver<Request>) -> Option<Request> {
        let mut group = Vec::new();
        let mut planned: HashMap<(usize, Box<str>), Option<Entry>> = HashMap::new();
        let mut revision = self.cache.revision();
        let mut other = None;
        let mut next = Some(first);
        while let Some(write) = next.take() {
            let place = (Arc::as_ptr(&write.bucket) as usize, write.key.clone());
            let current = match planned.get(&place) {
                Some(entry) => entry.clone(),
                None => write.bucket.get(&write.key),
            };
            match check(write.expect, &write.change, current.as_ref()) {
                Err(error) => drop(write.reply.send(Err(error))),
                Ok(()) => {
                    revision += 1;
                    if let Some(accepted) = accept(write, current, revision) {
                        planned.insert(place, (!accepted.record.deleted).then(|| accepted.entry.clone()));
                        group.push(accepted);
                    } else {
                        revision -= 1;
                    }
                }
            }
            if group.len() < GROUP {
                match requests.try_recv() {
                    Ok(Request::Write(write)) => next = Some(write),
                    Ok(request) => other = Some(request),
                    Err(_) => {}
                }
            }
        }
        self.flush(group);
        other
    }

    /// Appends a group and answers its writers.
    fn flush(&mut self, group: Vec<Accepted>) {
        let (records, answers): (Vec<Record>, Vec<_>) =
            group.into_iter().map(|accepted| (accepted.record, (accepted.entry, accepted.reply))).unzip();
        if records.is_empty() {
            return;
        }
        match self.append(&records) {
            Ok(()) => {
                records.into_iter().for_each(|record| self.cache.apply(record));
                answers.into_iter().for_each(|(entry, reply)| drop(reply.send(Ok(entry))));
            }
            Err(error) => {
                tracing::error!(%error, "the store's log refused a write; reads go on from memory");
                for (_, reply) in answers {
                    let _ = reply.send(Err(StoreError::Io(copy(&error))));
                }
            }
        }
    }

    fn append(&mut self, records: &[Record]) -> std::io::Result<()> {
        if let Err(failed) = &self.engine {
            if failed.elapsed() < REOPEN_AFTER {
                return Err(std::io::Error::other("the log failed and is not open again yet"));
            }
            let before = self.cache.revision();
            self.engine = Ok(self.reopen()?);
            if self.cache.revision() != before {
                return Err(std::io::Error::other("the log was opened again; try once more"));
            }
        }
        let outcome = match &mut self.engine {
            Ok(engine) => engine.append(records),
            Err(_) => return Err(std::io::Error::other("the log is not open")),
        };
        if outcome.is_err() {
            self.engine = Err(Instant::now());
        }
        outcome
    }

    /// Opens the log anew and takes in what it holds beyond the cache.
    fn reopen(&mut self) -> std::io::Result<Box<dyn Engine>> {
        let mut engine = (self.open)().map_err(|error| std::io::Error::other(error.to_string()))?;
        let known = self.cache.revision();
        let (mut newest, mut beyond) = (1, Vec::new());
        engine.load(&mut |record| {
            newest = newest.max(record.revision);
            if record.revision > known {
                beyond.push(record);
            }
        })?;
        if newest < known && self.cache.oldest() < newest {
            return Err(std::io::Error::other("the log lost acknowledged revisions"));
        }
        beyond.into_iter().for_each(|record| self.cache.apply(record));
        tracing::info!(revision = self.cache.revision(), "the store's log was opened again");
        Ok(engine)
    }

    fn compact(&mut self, revision: Revision) -> Result<(), StoreError> {
        let current = self.cache.revision();
        if revision > current {
            return Err(StoreError::Future { asked: revision, current });
        }
        if revision <= self.cache.oldest() {
            return Ok(());
        }
        let superseded = self.cache.forget(revision);
        match &mut self.engine {
            Ok(engine) => engine.compact(&superseded, revision).map_err(StoreError::Io),
            Err(_) => Ok(()),
        }
    }
}

/// Whether the change finds what it expects.
fn check(expect: Option<Expect>, change: &Change, current: Option<&Entry>) -> Result<(), StoreError> {
    match (expect, current) {
        (Some(Expect::Absent), Some(_)) => Err(StoreError::Exists),
        (Some(Expect::Revision(_)), None) => Err(StoreError::Missing),
        (Some(Expect::Revision(expected)), Some(entry)) if entry.mod_revision != expected => {
            Err(StoreError::Modified { current: entry.mod_revision })
        }
        (_, None) if matches!(change, Change::Delete(_)) => Err(StoreError::Missing),
        _ => Ok(()),
    }
}

/// Fills in the revision; answers the writer itself when the draft has no place for it.
fn accept(write: Write, current: Option<Entry>, revision: Revision) -> Option<Accepted> {
    let (draft, deleted) = match write.change {
        Change::Put(draft) => (draft, false),
        Change::Delete(draft) => (draft, true),
    };
    let revision_at = draft.revision_at;
    let too_long = write.key.len() > u16::MAX as usize;
    let Some(value) = fill_in(draft, revision).filter(|_| !too_long) else {
        let _ = write.reply.send(Err(StoreError::Malformed));
        return None;
    };
    let entry = Entry {
        key: write.key.into(),
        value: value.clone(),
        create_revision: current.map_or(revision, |entry| entry.create_revision),
        mod_revision: revision,
        revision_at,
    };
    let record = Record {
        revision,
        create_revision: entry.create_revision,
        deleted,
        bucket: write.bucket.name.to_string(),
        key: entry.key.to_string(),
        value,
        revision_at,
    };
    Some(Accepted { record, entry, reply: write.reply })
}

fn fill_in(draft: Draft, revision: Revision) -> Option<Bytes> {
    let Draft { mut bytes, revision_at } = draft;
    if bytes.get(revision_at) != Some(&b'"') {
        return None;
    }
    bytes.splice(revision_at..revision_at, revision.to_string().into_bytes());
    Some(bytes.into())
}

/// One error for each of a group's writers.
fn copy(error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), error.to_string())
}
