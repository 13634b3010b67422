//! The durable half of the store: a log of revisions on disk.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::record::Record;
use super::{Revision, StoreError};

/// A log that keeps records by revision.
pub trait Engine: Send {
    /// Hands over every record in order; returns the revision up to which history was forgotten.
    fn load(&mut self, each: &mut dyn FnMut(Record)) -> io::Result<Revision>;

    /// Adds a group of records; all of them are on disk when it returns, or none is.
    fn append(&mut self, group: &[Record]) -> io::Result<()>;

    /// Drops superseded records and remembers how far history is forgotten. Need not be durable at once.
    fn compact(&mut self, superseded: &[Revision], upto: Revision) -> io::Result<()>;
}

/// sled, embedded: one tree, keyed by big-endian revision; key 0 holds the compacted revision.
pub struct SledEngine {
    // Fields drop in order: the database is closed before the lock is released.
    log: sled::Tree,
    database: sled::Db,
    /// sled's file once more: its flush asks the kernel to write (`sync_file_range`), which survives a
    /// killed process but not a power cut; `fdatasync` on this one makes it survive that too.
    file: File,
    /// Holds a revision the log must read back to.
    head: PathBuf,
    /// 0 until the log was loaded.
    newest: Revision,
    _lock: Flock<File>,
}

const COMPACTED: [u8; 8] = [0; 8];
/// Less than this free and sled is not opened: it writes at once, and half a snapshot stops it for ever.
const ROOM: u64 = 4 << 20;

impl SledEngine {
    /// Opens the database in `dir`, waiting for another process that holds it to end.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |source: io::Error| StoreError::Open { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("LOCK")).map_err(failed)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
        room(dir).and_then(|()| remove_half_snapshots(&dir.join("sled"))).map_err(failed)?;
        // The watch cache holds every live object already, so sled's own cache stays small. Flushing is
        // ours: once a group, never by a timer.
        let database = sled::Config::new()
            .path(dir.join("sled"))
            .cache_capacity(4 << 20)
            .flush_every_ms(None)
            .open()
            .map_err(|error| failed(into_io(error)))?;
        let log = database.open_tree("log").map_err(|error| failed(into_io(error)))?;
        let file = File::open(dir.join("sled/db")).map_err(failed)?;
        Ok(Self { log, database, file, head: dir.join("HEAD"), newest: 0, _lock: lock })
    }

    /// The revision the log had when this was last written: at its opening, each compaction, its end.
    fn head(&self) -> Revision {
        let text = std::fs::read_to_string(&self.head).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn write_head(&self) -> io::Result<()> {
        let new = self.head.with_extension("new");
        std::fs::write(&new, format!("{}\n", self.newest))?;
        File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &self.head)
    }
}

impl Drop for SledEngine {
    fn drop(&mut self) {
        if self.newest > 0
            && let Err(error) = self.write_head()
        {
            tracing::warn!(%error, "cannot note the store's newest revision");
        }
    }
}

/// Whether there is room to open the log.
fn room(dir: &Path) -> io::Result<()> {
    let there = nix::sys::statvfs::statvfs(dir)?;
    match there.blocks_available() as u64 * there.fragment_size() as u64 {
        free if free < ROOM => Err(nix::errno::Errno::ENOSPC.into()),
        _ => Ok(()),
    }
}

/// Removes what sled left when it was ended, or the disk was full, while it wrote a snapshot: it takes
/// them for damage.
fn remove_half_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

impl Engine for SledEngine {
    fn load(&mut self, each: &mut dyn FnMut(Record)) -> io::Result<Revision> {
        let (mut compacted, mut newest) = (0, 0);
        for item in self.log.iter() {
            let (key, bytes) = item.map_err(into_io)?;
            let key: [u8; 8] = key.as_ref().try_into().map_err(|_| corrupt("a key"))?;
            if key == COMPACTED {
                compacted = u64::from_be_bytes(bytes.as_ref().try_into().map_err(|_| corrupt("its head"))?);
                continue;
            }
            let revision = u64::from_be_bytes(key);
            newest = newest.max(revision);
            each(Record::decode(revision, &bytes).ok_or_else(|| corrupt(&format!("revision {revision}")))?);
        }
        newest = newest.max(compacted);
        let head = self.head();
        if newest < head {
            let why = format!(
                "it reads back to revision {newest} and had {head}: it is damaged; put a copy of it back, or remove the directory to begin with an empty cluster"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        // Only now: a log that did not read back must not lower what it is held to.
        self.newest = newest;
        if newest > head {
            self.write_head()?;
        }
        Ok(compacted)
    }

    fn append(&mut self, group: &[Record]) -> io::Result<()> {
        match group {
            // A batch costs sled a second write for its manifest.
            [record] => {
                self.log.insert(record.revision.to_be_bytes(), record.encode()).map_err(into_io)?;
            }
            _ => {
                let mut batch = sled::Batch::default();
                for record in group {
                    batch.insert(&record.revision.to_be_bytes(), record.encode());
                }
                self.log.apply_batch(batch).map_err(into_io)?;
            }
        }
        self.database.flush().map_err(into_io)?;
        self.file.sync_data()?;
        self.newest = group.last().map_or(self.newest, |record| record.revision);
        Ok(())
    }

    fn compact(&mut self, superseded: &[Revision], upto: Revision) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for revision in superseded {
            batch.remove(&revision.to_be_bytes());
        }
        batch.insert(&COMPACTED, &upto.to_be_bytes());
        self.log.apply_batch(batch).map_err(into_io)?;
        self.write_head()
    }
}

fn into_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

fn corrupt(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log does not read back at {what}"))
}
