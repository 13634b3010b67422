//! Container logs on disk: rotated when they grow, compressed, and taken away with their container.
//!
//! `pkg/kubelet/logs/container_log_manager.go`: `0.log` is moved to `0.log.20261122-101500` and opened anew by
//! its shim; what was moved before that is gzipped; beyond `containerLogMaxFiles` the oldest go.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Zoned;
use tracing::{info, warn};

use super::super::config::Config;
use crate::node::shim::{ContainerPhase, Runtime};

const COMPRESSED: &str = ".gz";
const UNFINISHED: &str = ".tmp";

/// Looks at the logs of running containers every so often. For ever.
pub async fn rotate(config: Arc<Config>, runtime: Runtime) {
    loop {
        tokio::time::sleep(config.log_check).await;
        for sandbox in runtime.known_sandboxes() {
            for container in &sandbox.containers {
                if container.phase != ContainerPhase::Running || !is_over(&container.log_path, &config) {
                    continue;
                }
                let (path, most) = (container.log_path.clone(), config.log_max_files);
                let moved =
                    tokio::task::spawn_blocking(move || make_room(&path, most).and_then(|()| shift(&path)));
                match moved.await.map_err(io::Error::other).and_then(|moved| moved) {
                    Ok(()) => info!(path = %container.log_path.display(), "Rotated a container's log"),
                    Err(error) => {
                        warn!(%error, path = %container.log_path.display(), "Failed to rotate log for container");
                        continue;
                    }
                }
                if let Err(error) = runtime.reopen_log(&sandbox.id, &container.id).await {
                    warn!(%error, container = container.name, "Container log cannot be opened anew");
                }
            }
        }
    }
}

fn is_over(path: &Path, config: &Config) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() >= config.log_max_bytes)
}

/// Moves the log away. Its writer goes on in the moved file until it is told to open another.
fn shift(path: &Path) -> io::Result<()> {
    let mut to = path.as_os_str().to_owned();
    to.push(Zoned::now().strftime(".%Y%m%d-%H%M%S").to_string());
    fs::rename(path, PathBuf::from(to))
}

/// Leaves room for the log itself and for what it is about to be moved to, and compresses the rest.
fn make_room(path: &Path, most: u32) -> io::Result<()> {
    let mut moved = moved(path);
    for rest in moved.extract_if(.., |path| has_end(path, UNFINISHED)) {
        fs::remove_file(rest)?;
    }
    let keep = usize::try_from(most.saturating_sub(2)).unwrap_or(usize::MAX);
    let excess = moved.len().saturating_sub(keep);
    for oldest in moved.drain(..excess) {
        fs::remove_file(oldest)?;
    }
    moved.iter().filter(|path| !has_end(path, COMPRESSED)).try_for_each(|path| compress(path))
}

fn has_end(path: &Path, end: &str) -> bool {
    path.as_os_str().to_string_lossy().ends_with(end)
}

/// What was moved away of this log, the oldest first: its names have times.
fn moved(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn compress(path: &Path) -> io::Result<()> {
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let draft = with(UNFINISHED);
    let mut out = GzEncoder::new(File::create(&draft)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut out)?;
    out.finish()?.sync_all()?;
    fs::rename(draft, with(COMPRESSED))?;
    fs::remove_file(path)
}

/// Takes a container's log away, with all that was moved.
pub fn clean(path: &Path) {
    for file in moved(path).iter().map(PathBuf::as_path).chain([path]) {
        // It may never have been written.
        let _ = fs::remove_file(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_all_but_the_last_moved_are_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let write = |name: &str| fs::write(dir.path().join(name), "text").unwrap();
        let names = || {
            let mut names: Vec<String> = moved(&log)
                .iter()
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        write("0.log");
        write("0.log.20260101-000000.gz");
        write("0.log.20260102-000000.gz");
        write("0.log.20260103-000000.gz");
        write("0.log.20260104-000000");
        write("0.log.20260104-000000.tmp");
        write("1.log");
        make_room(&log, 5).unwrap();
        assert_eq!(
            names(),
            ["0.log.20260102-000000.gz", "0.log.20260103-000000.gz", "0.log.20260104-000000.gz"]
        );
        shift(&log).unwrap();
        assert!(!log.exists() && names().len() == 4, "with the new log there are five");
        let packed = File::open(dir.path().join("0.log.20260104-000000.gz")).unwrap();
        let text = io::read_to_string(flate2::read::GzDecoder::new(packed)).unwrap();
        assert_eq!(text, "text");
        clean(&log);
        assert!(names().is_empty() && dir.path().join("1.log").exists());
    }
}
