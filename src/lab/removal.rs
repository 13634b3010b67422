//! Removing what a lab's own root and its pods' users wrote.
//!
//! Overlay mounts leave directories nobody may enter, and pods with users of their own leave files of ids
//! that are not the owner's. Root of a user namespace with the lab's ids may remove both; an ordinary user
//! becomes that for the moment it takes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};

use super::idmap::IdMap;
use super::state::LabDir;
use crate::sys::child::Spawn;

/// The command line's hidden word for "remove this directory".
pub const WORD: &str = "remove-tree";

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    #[error("cannot become the lab's root")]
    Become { source: std::io::Error },
    #[error("cannot remove {path}: {how:?}")]
    Failed { path: PathBuf, how: WaitStatus },
    #[error("cannot remove {path}")]
    Remove { path: PathBuf, source: std::io::Error },
}

/// Removes one file or directory of a lab, whoever in the lab it belongs to; one that is not there is done.
pub fn tree(lab: &LabDir, path: &Path) -> Result<(), RemovalError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // What pods' own users and overlay mounts left: the lab's root may remove it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => as_root_of(lab, path),
        other => other.map_err(|source| RemovalError::Remove { path: path.to_owned(), source }),
    }
}

/// Removes all that is in a lab's directory but what says that a keeper holds it.
pub fn contents(lab: &LabDir) -> Result<(), RemovalError> {
    let failed = |source| RemovalError::Remove { path: lab.state.clone(), source };
    for entry in std::fs::read_dir(&lab.state).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != "keeper.lock" {
            tree(lab, &entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory of the lab with the lab's own ids. Only from a process with one thread.
fn as_root_of(lab: &LabDir, path: &Path) -> Result<(), RemovalError> {
    let failed = |source| RemovalError::Become { source };
    let program = std::env::current_exe().map_err(failed)?;
    let argv = ["minilab".into(), WORD.to_owned(), path.display().to_string()].to_vec();
    let mut spawn = Spawn::new(program.display().to_string(), argv);
    spawn.namespaces = CloneFlags::CLONE_NEWUSER;
    spawn.dies_with_parent = true;
    let (child, gate) = spawn.start_gated().map_err(failed)?;
    let map = IdMap::choose(lab.owner.uid.as_raw(), lab.owner.gid.as_raw());
    map.write(child.pid.as_raw()).map_err(failed)?;
    gate.open().map_err(failed)?;
    match waitpid(child.pid, None).map_err(|errno| failed(errno.into()))? {
        WaitStatus::Exited(_, 0) => Ok(()),
        how => Err(RemovalError::Failed { path: path.to_owned(), how }),
    }
}
