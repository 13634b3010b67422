//! From layers to one root directory.
//!
//! Layers are laid over each other here and now, so an image is one directory and a container's overlay has
//! one lower layer. Left out on purpose: sharing layers between images, device files (a user namespace may
//! make none) and extended attributes. Done inside the root itself, where a link that leads out leads
//! nowhere: what an archive says is believed no further than its own image.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::{Component, Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::ImageError;
use super::archive::Archive;

/// Marks what the layers below have and the image does not.
const GONE: &str = ".wh.";
/// Marks a directory of which the layers below count for nothing.
const EMPTIED: &str = ".wh..wh..opq";

/// Lays an image's layers into an empty directory, and checks that they are what its configuration says.
pub fn into(
    root: &Path,
    archive: &Archive,
    layers: &[String],
    diff_ids: &[String],
) -> Result<u64, ImageError> {
    if layers.len() != diff_ids.len() {
        let what = format!("{} layers and {} diff_ids", layers.len(), diff_ids.len());
        return Err(ImageError::Archive { what });
    }
    let failed = |source| ImageError::Unpack { path: root.to_owned(), source };
    inside(root, || {
        let mut size = 0;
        for (layer, wanted) in layers.iter().zip(diff_ids) {
            let mut counted =
                Counted { inner: archive.layer(layer)?, context: Context::new(&SHA256), size: 0 };
            apply(&mut counted).map_err(failed)?;
            // The padding after the last file counts too.
            io::copy(&mut counted, &mut io::sink()).map_err(failed)?;
            let digest = super::hex(counted.context.finish().as_ref());
            if *wanted != format!("sha256:{digest}") {
                let what = format!("layer {layer} is sha256:{digest}, not {wanted}");
                return Err(ImageError::Archive { what });
            }
            size += counted.size;
        }
        Ok(size)
    })
    .map_err(failed)?
}

/// Does something with another root. Only in a process of one thread.
fn inside<T>(root: &Path, work: impl FnOnce() -> T) -> io::Result<T> {
    let outside = File::open("/")?;
    nix::unistd::chroot(root)?;
    nix::unistd::chdir("/")?;
    let done = work();
    nix::unistd::fchdir(&outside)?;
    nix::unistd::chroot(".")?;
    Ok(done)
}

struct Counted<R> {
    inner: R,
    context: Context,
    size: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.context.update(&buffer[..length]);
        self.size += length as u64;
        Ok(length)
    }
}

/// One layer over what is there.
fn apply(layer: &mut impl Read) -> io::Result<()> {
    let mut tar = tar::Archive::new(layer);
    let mut directories = Vec::new();
    for entry in tar.entries()? {
        let mut entry = entry?;
        let Some(path) = place(&entry.path()?) else { continue };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let parent = path.parent().unwrap_or(Path::new("/"));
        if name == EMPTIED {
            empty(parent)?;
            continue;
        }
        if let Some(gone) = name.strip_prefix(GONE) {
            remove(&parent.join(gone))?;
            continue;
        }
        fs::create_dir_all(parent)?;
        let header = entry.header();
        let (kind, mode) = (header.entry_type(), header.mode()? & 0o7777);
        let (user, group) = (id(header.uid()?), id(header.gid()?));
        if kind.is_dir() {
            if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                remove(&path)?;
                fs::create_dir(&path)?;
            }
            give(&path, user, group)?;
            // Set last: what is in it is still to come.
            directories.push((path, mode));
            continue;
        }
        remove(&path)?;
        if kind.is_hard_link() {
            let target = entry.link_name()?.and_then(|target| place(&target));
            fs::hard_link(target.ok_or(io::ErrorKind::InvalidData)?, &path)?;
            continue;
        }
        if kind.is_fifo() {
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(mode))?;
        } else if kind.is_symlink() {
            let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?;
            std::os::unix::fs::symlink(target, &path)?;
        } else if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            io::copy(&mut entry, &mut File::create_new(&path)?)?;
        } else {
            continue;
        }
        give(&path, user, group)?;
        if !kind.is_symlink() {
            // After the owner: giving a file away takes its set-user-id bit.
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
    }
    directories.iter().rev().try_for_each(|(path, mode)| match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::set_permissions(path, Permissions::from_mode(*mode)),
        _ => Ok(()),
    })
}

/// Where an entry goes, from the root; nothing for the root itself and what would leave it.
fn place(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (clean != Path::new("/")).then_some(clean)
}

fn id(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX - 1)
}

/// Gives a path to its owner. In a lab of one id everything stays root's.
fn give(path: &Path, user: u32, group: u32) -> io::Result<()> {
    match lchown(path, Some(user), Some(group)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let gone = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(())
        }
        other => other,
    }
}

fn empty(directory: &Path) -> io::Result<()> {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.try_for_each(|entry| remove(&entry?.path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_never_leaves_the_root() {
        assert_eq!(place(Path::new("./usr/bin/sh")), Some("/usr/bin/sh".into()));
        assert_eq!(place(Path::new("/etc/passwd")), Some("/etc/passwd".into()));
        assert_eq!(place(Path::new("usr/../../etc/passwd")), None);
        assert_eq!(place(Path::new("./")), None);
    }
}
