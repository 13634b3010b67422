//! Files that may change while the kubelet runs: its serving certificate and the client authorities.
//!
//! Stands for `dynamiccertificates`: woken by inotify on the files' directories (a file may be replaced by a
//! rename, or be a link that is turned), and looks again every minute whatever it heard.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::sys::ready::Readable;

/// Upstream looks this often even when nothing is heard.
const RESYNC: Duration = Duration::from_secs(60);
/// Certificate and key are written one after the other.
const SETTLE: Duration = Duration::from_millis(100);

/// Calls `changed` whenever one of the files has other contents than before. For ever.
pub async fn on_change(paths: Vec<PathBuf>, mut changed: impl FnMut()) {
    let mut seen = contents(&paths);
    let ears = Ears::on(&paths).ok();
    loop {
        tokio::select! {
            () = Ears::hear(ears.as_ref()) => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(RESYNC) => {}
        }
        let now = contents(&paths);
        if now != seen {
            seen = now;
            changed();
        }
    }
}

fn contents(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    paths.iter().map(|path| std::fs::read(path).ok()).collect()
}

/// Hears of changes in the directories of some files.
pub struct Ears {
    ready: Readable,
    inotify: Inotify,
}

impl Ears {
    pub fn on(paths: &[PathBuf]) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let what = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE;
        for path in paths {
            inotify.add_watch(path.parent().unwrap_or(Path::new("/")), what)?;
        }
        Ok(Self { ready: Readable::of(&inotify)?, inotify })
    }

    /// Returns at the next change; never where nothing can be heard.
    pub async fn hear(ears: Option<&Self>) {
        match ears {
            None => std::future::pending().await,
            Some(ears) => {
                if ears.ready.until(|| ears.inotify.read_events().map_err(io::Error::from)).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_replaced_by_a_rename_is_noticed_and_one_beside_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls.crt");
        std::fs::write(&path, "one").unwrap();
        let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let watching = tokio::spawn(on_change(vec![path.clone()], move || tell.send(()).unwrap()));
        tokio::time::sleep(Duration::from_millis(20)).await;
        std::fs::write(dir.path().join("other"), "x").unwrap();
        std::fs::write(dir.path().join("new"), "two").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        tokio::time::timeout(Duration::from_secs(5), heard.recv()).await.unwrap().unwrap();
        std::fs::write(dir.path().join("other"), "y").unwrap();
        tokio::time::sleep(3 * SETTLE).await;
        assert!(heard.try_recv().is_err(), "nothing of ours changed");
        watching.abort();
    }
}
