//! The audit log's file, set aside when it has grown (lumberjack, which upstream uses).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

const MEGABYTE: u64 = 1024 * 1024;
/// What lumberjack takes when nothing is said.
const DEFAULT_MEGABYTES: u64 = 100;

pub(super) struct Log {
    path: PathBuf,
    longest: u64,
    backups: usize,
    age: Option<Duration>,
    open: Mutex<Open>,
}

struct Open {
    file: Box<dyn Write + Send>,
    /// Of a file that can be set aside.
    size: Option<u64>,
}

impl Log {
    pub(super) fn open(path: &Path, megabytes: u64, backups: usize, days: u64) -> io::Result<Self> {
        let megabytes = if megabytes == 0 { DEFAULT_MEGABYTES } else { megabytes };
        let open = match path == Path::new("-") {
            true => Open { file: Box::new(io::stdout()), size: None },
            false => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                Open::file(path)?
            }
        };
        Ok(Self {
            path: path.to_owned(),
            longest: megabytes * MEGABYTE,
            backups,
            age: (days > 0).then(|| Duration::from_secs(days * 24 * 3600)),
            open: Mutex::new(open),
        })
    }

    /// Appends one line. What cannot be written is told to the server's own log; whether a full disk stops
    /// the API is the mode's business.
    pub(super) fn write(&self, line: &[u8]) -> bool {
        let mut open = self.open.lock().expect("nothing panics while holding the lock");
        let outcome = match open.size {
            Some(size) if size > 0 && size + line.len() as u64 > self.longest => self.turn(&mut open),
            _ => Ok(()),
        };
        let outcome = outcome.and_then(|()| open.file.write_all(line));
        match outcome {
            Ok(()) => {
                open.size = open.size.map(|size| size + line.len() as u64);
                true
            }
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "Unable to write audit event");
                false
            }
        }
    }

    /// Sets the file aside and begins a new one.
    fn turn(&self, open: &mut Open) -> io::Result<()> {
        let stamp = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3f");
        let (stem, end) = self.name();
        std::fs::rename(&self.path, self.path.with_file_name(format!("{stem}-{stamp}{end}")))?;
        *open = Open::file(&self.path)?;
        self.forget()
    }

    /// The name before and after which a backup's time stands.
    fn name(&self) -> (String, String) {
        let end = self.path.extension().map_or(String::new(), |end| format!(".{}", end.to_string_lossy()));
        (self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), end)
    }

    /// Removes backups that are too many or too old.
    fn forget(&self) -> io::Result<()> {
        let (stem, end) = self.name();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut backups: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stamp = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&end));
            if stamp.is_some_and(|stamp| stamp.len() == 23 && stamp.starts_with("20")) {
                backups.push(path);
            }
        }
        // The newest first: their names are times.
        backups.sort();
        backups.reverse();
        for (at, path) in backups.iter().enumerate() {
            let too_many = self.backups > 0 && at >= self.backups;
            let age = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
            let age = age.and_then(|time| SystemTime::now().duration_since(time).ok());
            let too_old = self.age.zip(age).is_some_and(|(longest, age)| age > longest);
            if too_many || too_old {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Open {
    fn file(path: &Path) -> io::Result<Self> {
        let file: File = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { file: Box::new(file), size: Some(size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_grew_is_set_aside_and_the_oldest_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let log = Log { longest: 10, ..Log::open(&path, 1, 2, 0).unwrap() };
        for number in 0..6 {
            log.write(format!("line {number}\n").as_bytes());
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut names: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-20") && names[0].ends_with(".log"), "{names:?}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "line 5\n");
    }
}
