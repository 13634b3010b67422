//! Word of files that are written to, for whoever follows them: one inotify instance for the whole kubelet,
//! since a user may have 128 and an editor wants some of them.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::watch;

use crate::sys::ready::Readable;

/// The kubelet's ear; made when the first file is followed.
#[derive(Default)]
pub struct Changes(Mutex<Option<Arc<Ear>>>);

struct Ear {
    inotify: Inotify,
    /// Followers of one file share its descriptor.
    files: Mutex<HashMap<WatchDescriptor, Followed>>,
}

struct Followed {
    told: watch::Sender<()>,
    followers: usize,
}

/// One follower's interest in one file.
pub struct Change {
    ear: Arc<Ear>,
    file: WatchDescriptor,
    told: watch::Receiver<()>,
}

impl Changes {
    /// Listens for writes to the file that is at `path` now.
    pub fn of(&self, path: &Path) -> io::Result<Change> {
        let mut ear = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ear = match &*ear {
            Some(ear) => Arc::clone(ear),
            None => Arc::clone(ear.insert(Ear::open()?)),
        };
        let mut files = ear.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = ear.inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        let followed =
            files.entry(file).or_insert_with(|| Followed { told: watch::channel(()).0, followers: 0 });
        followed.followers += 1;
        let told = followed.told.subscribe();
        drop(files);
        Ok(Change { ear, file, told })
    }
}

impl Ear {
    fn open() -> io::Result<Arc<Ear>> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let ready = Readable::of(&inotify)?;
        let ear = Arc::new(Ear { inotify, files: Mutex::default() });
        let hearing = Arc::clone(&ear);
        tokio::spawn(async move {
            while let Ok(events) =
                ready.until(|| hearing.inotify.read_events().map_err(io::Error::from)).await
            {
                hearing.tell(&events);
            }
        });
        Ok(ear)
    }

    fn tell(&self, events: &[InotifyEvent]) {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        // The kernel gave up counting: anything may have changed.
        if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)) {
            files.values().for_each(|followed| followed.told.send_replace(()));
        }
        for followed in events.iter().filter_map(|event| files.get(&event.wd)) {
            followed.told.send_replace(());
        }
    }
}

impl Change {
    /// Returns once the file was written to since the last time.
    pub async fn wait(&mut self) {
        // The sender lives as long as this does.
        let _ = self.told.changed().await;
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut files = self.ear.files.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(followed) = files.get_mut(&self.file) else { return };
        followed.followers -= 1;
        if followed.followers == 0 {
            files.remove(&self.file);
            // A file that is gone took its watch along.
            let _ = self.ear.inotify.rm_watch(self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_follower_of_a_file_hears_of_it_and_of_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (temp.path().join("one"), temp.path().join("two"));
        let mut file = std::fs::File::create(&one).unwrap();
        std::fs::File::create(&two).unwrap();
        let changes = Changes::default();
        let mut followers = [changes.of(&one).unwrap(), changes.of(&one).unwrap()];
        let mut other = changes.of(&two).unwrap();
        file.write_all(b"x").unwrap();
        for follower in &mut followers {
            tokio::time::timeout(Duration::from_secs(10), follower.wait()).await.unwrap();
        }
        assert!(tokio::time::timeout(Duration::from_millis(20), other.wait()).await.is_err());
        let ear = Arc::clone(&other.ear);
        drop((followers, other));
        assert!(ear.files.lock().unwrap().is_empty());
        // What was let go can be followed again.
        let mut again = changes.of(&one).unwrap();
        file.write_all(b"y").unwrap();
        tokio::time::timeout(Duration::from_secs(10), again.wait()).await.unwrap();
    }
}
