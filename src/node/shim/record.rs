//! A sandbox's record on disk: what a kubelet that was dead learns from, also when the shim is dead too.
//!
//! Written before a change is announced, whole and by rename. Not synced: when the node's power is cut its
//! containers are gone as well, and what is on disk then still says which there were.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::protocol::{Directories, SandboxPaths, State, is_id};
use super::spec::ContainerPhase;

/// Replaces the record.
pub fn save(paths: &SandboxPaths, state: &State) -> io::Result<()> {
    let record = paths.record();
    let draft = record.with_extension("draft");
    fs::write(&draft, serde_json::to_vec(state)?)?;
    fs::rename(draft, record)
}

/// Reads the record; `None` where there is none or it cannot be understood.
pub fn load(paths: &SandboxPaths) -> Option<State> {
    serde_json::from_slice(&fs::read(paths.record()).ok()?).ok()
}

/// The ids of all sandboxes with a directory on this node.
pub fn scan(directories: &Directories) -> io::Result<Vec<String>> {
    match fs::read_dir(&directories.state) {
        Ok(entries) => Ok(ids(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Removes writable layers of containers the record no longer knows.
pub fn sweep(paths: &SandboxPaths, state: &State) {
    for id in fs::read_dir(&paths.state).map(ids).unwrap_or_default() {
        if !state.sandbox.containers.iter().any(|container| container.id == id) {
            // What cannot be removed now is tried again at the next start.
            let _ = fs::remove_dir_all(paths.container(&id));
        }
    }
}

fn ids(entries: fs::ReadDir) -> Vec<String> {
    let names = entries.flatten().map(|entry| PathBuf::from(entry.file_name()));
    names.filter(|name| is_id(name)).filter_map(|name| name.to_str().map(str::to_owned)).collect()
}

/// The shim's sign of life: an exclusive lock that the kernel releases however the shim ends.
#[derive(Debug)]
pub struct Alive(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Alive {
    pub fn claim(path: &Path) -> io::Result<Alive> {
        let file = open(path)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        io::Write::write_all(&mut *file, format!("{}\n", std::process::id()).as_bytes())?;
        Ok(Alive(file))
    }
}

/// Whether a shim holds this lock. It may still be stuck.
pub fn alive(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
        Err(_) => false,
    }
}

/// The pid of a living shim, for the case that it does not answer.
pub fn holder(path: &Path) -> Option<i32> {
    alive(path).then(|| fs::read_to_string(path).ok()?.trim().parse().ok())?
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).write(true).truncate(true).mode(0o600).open(path)
}

/// Says of what a dead shim held that it is over. Its containers died with it, nobody saw how.
pub fn end(state: &mut State, now: &str) {
    state.number += 1;
    state.sandbox.ready = false;
    for container in &mut state.sandbox.containers {
        if container.phase != ContainerPhase::Exited {
            container.phase = ContainerPhase::Exited;
            container.pid = None;
            container.exit_code = Some(137);
            container.finished_at = Some(now.to_owned());
            container.reason = Some("Unknown".to_owned());
            container.message = Some("the shim that held the container is gone".to_owned());
        }
    }
}
