//! Bytes on disk: of a file system, and of what is below a directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

/// A directory with more entries than this is told as far as it was counted.
const MOST_ENTRIES: usize = 100_000;

/// What a file system has in all (`FsStats`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Space {
    available: u64,
    capacity: u64,
    inodes: u64,
    inodes_free: u64,
}

impl Space {
    pub fn of(path: &Path) -> Option<Self> {
        let fs = nix::sys::statvfs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(fs.fragment_size());
        Some(Self {
            available: bytes(fs.blocks_available()),
            capacity: bytes(fs.blocks()),
            inodes: fs.files(),
            inodes_free: fs.files_free(),
        })
    }

    /// The file system itself.
    pub fn whole(&self, time: &str) -> Value {
        self.used(
            time,
            Used {
                bytes: self.capacity.saturating_sub(self.available),
                inodes: self.inodes.saturating_sub(self.inodes_free),
            },
        )
    }

    /// A part of it.
    pub fn used(&self, time: &str, used: Used) -> Value {
        json!({
            "time": time,
            "availableBytes": self.available,
            "capacityBytes": self.capacity,
            "usedBytes": used.bytes,
            "inodesFree": self.inodes_free,
            "inodes": self.inodes,
            "inodesUsed": used.inodes,
        })
    }
}

/// What is below a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    pub bytes: u64,
    pub inodes: u64,
}

impl Used {
    /// Counts a tree, links as themselves and other file systems not at all.
    pub fn below(root: &Path) -> Self {
        let Ok(top) = fs::symlink_metadata(root) else { return Self::default() };
        let mut used = Self { bytes: top.blocks() * 512, inodes: 1 };
        let mut folders = vec![root.to_owned()];
        let mut left = MOST_ENTRIES;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.dev() != top.dev() {
                    continue;
                }
                left -= 1;
                if left == 0 {
                    return used;
                }
                used.bytes += meta.blocks() * 512;
                used.inodes += 1;
                if meta.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        used
    }

    pub fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, inodes: self.inodes + other.inodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_counted_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("out")).unwrap();
        let used = Used::below(dir.path());
        assert_eq!(used.inodes, 4);
        assert!(used.bytes >= 10_000 && used.bytes < 1 << 20, "{used:?}");
    }
}
