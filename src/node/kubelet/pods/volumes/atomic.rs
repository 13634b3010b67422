//! A directory whose files change all at once: upstream's atomic writer (`pkg/volume/util/atomic_writer.go`).
//!
//! ```text
//!   token  -> ..data/token          what containers open
//!   ..data -> ..2026_11_22_07_06_37.123456789      replaced by one rename
//!   ..2026_11_22_07_06_37.123456789/token
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Zoned;

/// A file to be: its bytes and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// Where it can be given away, whose it is and its mode then.
    pub given: Option<Given>,
}

/// A file's owner beside the kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub mode: u32,
}

/// Files by their relative paths.
pub type Payload = BTreeMap<PathBuf, File>;

/// Whether a path stays inside the directory: no `..`, nothing absolute.
pub fn stays_inside(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_))) && path.components().next().is_some()
}

/// Makes the directory hold exactly this; does nothing when it does already.
pub fn write(dir: &Path, payload: &Payload) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let data = dir.join("..data");
    let old = fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|old| same(&dir.join(old), payload)) {
        return Ok(());
    }
    let stamp = format!("..{}", Zoned::now().strftime("%Y_%m_%d_%H_%M_%S.%N"));
    let fresh = dir.join(&stamp);
    fs::DirBuilder::new().mode(0o755).create(&fresh)?;
    for (path, file) in payload {
        put(&fresh, path, file)?;
    }
    let turning = dir.join("..data_tmp");
    // Left by a kubelet that died between the two steps.
    let _ = fs::remove_file(&turning);
    symlink(&stamp, &turning)?;
    fs::rename(&turning, &data)?;
    link_names(dir, payload)?;
    match old {
        Some(old) if old != Path::new(&stamp) => fs::remove_dir_all(dir.join(old)),
        _ => Ok(()),
    }
}

fn put(fresh: &Path, path: &Path, file: &File) -> io::Result<()> {
    let target = fresh.join(path);
    if let Some(parent) = target.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    let mut opened =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&target)?;
    io::Write::write_all(&mut opened, &file.bytes)?;
    // An id that is not mapped in this lab can own nothing: then anybody may read what only it should.
    let given = file.given.filter(|given| fchown(&opened, given.user, given.group).is_ok());
    let mode = given.map_or(file.mode, |given| given.mode);
    // Set apart from opening, so that the umask has no say.
    opened.set_permissions(fs::Permissions::from_mode(mode))
}

/// Whether a file is as it would be made.
fn is_as_made(meta: &fs::Metadata, file: &File) -> bool {
    let mode = meta.permissions().mode() & 0o7777;
    let is = |wanted: Option<u32>, found: u32| wanted.is_none_or(|wanted| wanted == found);
    let given =
        |given: Given| given.mode == mode && is(given.user, meta.uid()) && is(given.group, meta.gid());
    file.given.is_some_and(given) || (mode == file.mode && file.given.is_none_or(|given| given.mode != mode))
}

/// The links users see, one for each first path component.
fn link_names(dir: &Path, payload: &Payload) -> io::Result<()> {
    let names: BTreeSet<&std::ffi::OsStr> =
        payload.keys().filter_map(|path| path.components().next()).map(|part| part.as_os_str()).collect();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("..") && !names.contains(name.as_os_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in names {
        match symlink(Path::new("..data").join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn same(dir: &Path, payload: &Payload) -> bool {
    let matches = |(path, file): (&PathBuf, &File)| {
        let target = dir.join(path);
        fs::metadata(&target).is_ok_and(|meta| is_as_made(&meta, file))
            && fs::read(&target).is_ok_and(|bytes| bytes == file.bytes)
    };
    count(dir) == payload.len() && payload.iter().all(matches)
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(pairs: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644, given: None };
        pairs.iter().map(|(path, text)| (PathBuf::from(path), file(text))).collect()
    }

    #[test]
    fn all_files_change_at_once_and_names_that_went_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")])).unwrap();
        let first = fs::read_link(dir.path().join("..data")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("sub/b")).unwrap(), "2");
        write(dir.path(), &payload(&[("a", "1"), ("sub/b", "2")])).unwrap();
        assert_eq!(fs::read_link(dir.path().join("..data")).unwrap(), first);
        write(dir.path(), &payload(&[("a", "3")])).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "3");
        assert!(!dir.path().join("sub").exists() && !dir.path().join(first).exists());
    }

    #[test]
    fn paths_must_stay_inside() {
        assert!(stays_inside(Path::new("a/b")));
        for bad in ["../a", "/a", "a/../../b", ""] {
            assert!(!stays_inside(Path::new(bad)), "{bad}");
        }
    }
}
