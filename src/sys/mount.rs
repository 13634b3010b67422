//! Mounts, as a host's root is built from them.

use std::ffi::{CStr, CString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

const NONE: Option<&str> = None;
const MOUNT_ATTR_RDONLY: u64 = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
const MOVE_MOUNT_T_SYMLINKS: libc::c_uint = 0x10;

/// What could not be mounted, and where.
#[derive(Debug, thiserror::Error)]
#[error("{action} at {path}")]
pub struct MountError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(nix::Error) -> MountError {
    move |errno| MountError { action, path: path.to_owned(), source: errno.into() }
}

/// Cuts this mount namespace off from the one it was copied from.
pub fn make_private() -> Result<(), MountError> {
    let root = Path::new("/");
    mount(NONE, root, NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE)
        .map_err(failed("make the mounts private", root))
}

/// Shows `from` at `to` too, with what is mounted below it (a user namespace may not leave that out).
pub fn bind(from: &Path, to: &Path) -> Result<(), MountError> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE).map_err(failed("bind", to))
}

/// As [`bind`], and nothing below `to` can be written.
pub fn bind_read_only(from: &Path, to: &Path) -> Result<(), MountError> {
    bind(from, to)?;
    read_only(to)
}

/// Makes a mount and all below it read-only.
pub fn read_only(at: &Path) -> Result<(), MountError> {
    set_read_only(libc::AT_FDCWD, &c_path(at)?, AT_RECURSIVE).map_err(failed("make read-only", at))
}

fn set_read_only(directory: RawFd, path: &CStr, flags: libc::c_uint) -> nix::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    let (pointer, size) = (&raw const attributes, size_of::<Attributes>());
    // SAFETY: path is NUL-terminated and the struct is the kernel's first version, with its size.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, directory, path.as_ptr(), flags, pointer, size) };
    nix::Error::result(result).map(drop)
}

fn c_path(path: &Path) -> Result<CString, MountError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| failed("name a place", path)(nix::Error::EINVAL))
}

/// A copy of a tree that is mounted nowhere yet: it can be attached after its source is out of sight.
#[derive(Debug)]
pub struct Detached {
    tree: OwnedFd,
    from: PathBuf,
}

impl Detached {
    /// Copies what is at `from`, with what is mounted below it.
    pub fn copy(from: &Path) -> Result<Detached, MountError> {
        let path = c_path(from)?;
        let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as libc::c_uint;
        // SAFETY: path is NUL-terminated; the other arguments are numbers.
        let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
        let fd = nix::Error::result(fd).map_err(failed("copy the tree", from))?;
        // SAFETY: open_tree just made this descriptor for us.
        let tree = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Detached { tree, from: from.to_owned() })
    }

    /// Nothing of it can be written any more.
    pub fn read_only(self) -> Result<Detached, MountError> {
        set_read_only(self.tree.as_raw_fd(), c"", AT_RECURSIVE | libc::AT_EMPTY_PATH as libc::c_uint)
            .map_err(failed("make read-only", &self.from))?;
        Ok(self)
    }

    /// Shows it at `to`; links are followed.
    pub fn attach(self, to: &Path) -> Result<(), MountError> {
        let path = c_path(to)?;
        let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
        let (tree, here) = (self.tree.as_raw_fd(), libc::AT_FDCWD);
        // SAFETY: both paths are NUL-terminated; the other arguments are numbers.
        let result =
            unsafe { libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), here, path.as_ptr(), flags) };
        nix::Error::result(result).map(drop).map_err(failed("attach", to))
    }
}

/// An empty file system in memory; `options` as for mount(8), for example `mode=755`.
pub fn tmpfs(at: &Path, options: &str) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options)).map_err(failed("mount tmpfs", at))
}

/// The processes of this pid namespace.
pub fn proc(at: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), at, Some("proc"), flags, NONE).map_err(failed("mount proc", at))
}

/// The devices of this network namespace, read-only.
pub fn sysfs(at: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("sysfs"), at, Some("sysfs"), flags, NONE).map_err(failed("mount sysfs", at))
}

/// Terminals of its own. Group 5 owns them where it is mapped, as on a real machine.
pub fn devpts(at: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let plain = "newinstance,ptmxmode=0666,mode=620";
    let with_group = format!("{plain},gid=5");
    mount(Some("devpts"), at, Some("devpts"), flags, Some(with_group.as_str()))
        .or_else(|_| mount(Some("devpts"), at, Some("devpts"), flags, Some(plain)))
        .map_err(failed("mount devpts", at))
}

/// The message queues of this ipc namespace.
pub fn mqueue(at: &Path) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("mqueue"), at, Some("mqueue"), flags, NONE).map_err(failed("mount mqueue", at))
}

/// Takes a mount away, now for everyone who looks, later for who still uses it.
pub fn detach(at: &Path) -> Result<(), MountError> {
    umount2(at, MntFlags::MNT_DETACH).map_err(failed("unmount", at))
}

/// Makes the mount at `root` this namespace's root; what was there before is seen at `old`, below it.
pub fn pivot(root: &Path, old: &Path) -> Result<(), MountError> {
    nix::unistd::pivot_root(root, old).map_err(failed("pivot", root))?;
    nix::unistd::chdir("/").map_err(failed("enter", root))
}

/// Makes an empty file to mount something on, unless something is there.
pub fn place_for_file(at: &Path) -> Result<(), MountError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(at);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(MountError { action: "make a place", path: at.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
