//! Making a lab's directory and program reachable for a lab whose root is nobody on the machine.
//!
//! Root's own labs lie below directories that only root may enter (`/root`). In a mount namespace of the
//! keeper's each such directory is covered by an empty one that anybody may enter, and what the lab needs is
//! shown in it at its usual path. So the lab sees of root's files nothing else, either.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};

use crate::sys::mount::{self, Detached, MountError};

/// What could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("cannot find {path}")]
    Find { path: PathBuf, source: io::Error },
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot make a mount namespace")]
    Namespace { source: nix::Error },
}

/// Lets a user reach these paths, in a mount namespace this process has from now on.
pub fn open(paths: &[&Path], uid: u32, gid: u32) -> Result<(), ReachError> {
    let mut hidden = Vec::new();
    for path in paths {
        let find = |source| ReachError::Find { path: path.to_path_buf(), source };
        let real = fs::canonicalize(path).map_err(find)?;
        if let Some(closed) = first_closed(&real, uid, gid).map_err(find)? {
            hidden.push((closed, real));
        }
    }
    if hidden.is_empty() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|source| ReachError::Namespace { source })?;
    mount::make_private()?;
    // All are held before the first is covered.
    let mut held = Vec::new();
    for (closed, real) in &hidden {
        held.push((Detached::copy(real)?, real.is_dir(), closed, real));
    }
    let mut covered: Vec<&PathBuf> = Vec::new();
    for (tree, is_directory, closed, real) in held {
        if !covered.contains(&closed) {
            mount::tmpfs(closed, "mode=755,size=64k")?;
            covered.push(closed);
        }
        let directory = if is_directory { real.as_path() } else { real.parent().unwrap_or(closed) };
        fs::create_dir_all(directory)
            .map_err(|source| ReachError::Make { path: directory.to_owned(), source })?;
        if !is_directory {
            mount::place_for_file(real)?;
        }
        tree.attach(real)?;
    }
    Ok(())
}

/// The first directory on the way to a path that this user may not enter.
fn first_closed(path: &Path, uid: u32, gid: u32) -> io::Result<Option<PathBuf>> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        let meta = fs::metadata(directory)?;
        let may = match (meta.uid() == uid, meta.gid() == gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if meta.mode() & may == 0 {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_directory_that_is_closed_to_others_is_found() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let deep = temp.path().join("one/two/three");
        fs::create_dir_all(&deep).unwrap();
        let nobody = 4_000_000;
        assert_eq!(first_closed(&deep, nobody, nobody).unwrap(), None);
        fs::set_permissions(temp.path().join("one/two"), PermissionsExt::from_mode(0o750)).unwrap();
        assert_eq!(first_closed(&deep, nobody, nobody).unwrap(), Some(temp.path().join("one/two")));
        let own = fs::metadata(&deep).unwrap();
        assert_eq!(first_closed(&deep, own.uid(), own.gid()).unwrap(), None);
    }
}
