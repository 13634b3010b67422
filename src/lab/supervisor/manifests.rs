//! Static-pod manifests under the administrator's hand: a changed file restarts its role, a removed one
//! stops it, a new one starts it, as a kubelet does with `/etc/kubernetes/manifests`.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Says that something in one of the directories may have changed.
pub struct Manifests(AsyncFd<Source>);

struct Source(Inotify);

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Manifests {
    /// Watches directories; one that is missing is not watched.
    pub fn watch(directories: &BTreeSet<PathBuf>) -> io::Result<Manifests> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let wanted = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        for directory in directories {
            match inotify.add_watch(directory, wanted) {
                Ok(_) | Err(nix::Error::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Manifests(AsyncFd::new(Source(inotify))?))
    }

    /// Waits for the next change.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|source| Ok(source.get_ref().0.read_events()?)) {
                Ok(events) => return events.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}
