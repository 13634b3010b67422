//! Removing what a lab's own root and its pods' users wrote.
//!
//! Overlay mounts leave directories nobody may enter, and pods with users of their own leave files of ids
//! that are not the owner's. Root of a user namespace with the lab's ids may remove both; an ordinary user
//! becomes that for the moment it takes.

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
}

/// Removes a directory of the lab with the lab's own ids. Only from a process with one thread.
pub fn as_root_of(lab: &LabDir, path: &Path) -> Result<(), RemovalError> {
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
