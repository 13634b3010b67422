//! Mounts held as descriptors: made while the old root is visible, put in place after `pivot_root`.
//!
//! A container's paths come from its image, where `/data` may be a link to anywhere. Placing every mount
//! after the pivot lets the kernel resolve them inside the container's own root, and nowhere else. proc
//! must be *made* before it: a user namespace may mount proc and sysfs only while a fully visible one is in
//! its mount namespace (fsmount checks that, not move_mount).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub const READ_ONLY: u64 = 1;
pub const NO_SUID: u64 = 2;
pub const NO_DEV: u64 = 4;
pub const NO_EXEC: u64 = 8;

const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const CLOEXEC: libc::c_uint = 1;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// A mount that is nowhere yet.
#[derive(Debug)]
pub struct Detached(OwnedFd);

/// `struct mount_attr`, first version.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

impl Detached {
    /// A new file system: `Detached::new("tmpfs", &[("mode", "755")], NO_SUID)`.
    pub fn new(kind: &str, options: &[(&str, &str)], attributes: u64) -> io::Result<Detached> {
        let kind = text(kind.as_bytes())?;
        // SAFETY: the string outlives the call; the kernel returns a descriptor of ours.
        let context = unsafe { owned(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC)) }?;
        for (key, value) in options {
            let (key, value) = (text(key.as_bytes())?, text(value.as_bytes())?);
            // SAFETY: both strings outlive the call.
            check(unsafe {
                libc::syscall(
                    libc::SYS_fsconfig,
                    context.as_raw_fd(),
                    FSCONFIG_SET_STRING,
                    key.as_ptr(),
                    value.as_ptr(),
                    0,
                )
            })?;
        }
        let nothing = std::ptr::null::<libc::c_char>();
        // SAFETY: this command takes null for key and value.
        check(unsafe {
            let fd = context.as_raw_fd();
            libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, nothing, nothing, 0)
        })?;
        // SAFETY: no pointers; the kernel returns a descriptor of ours.
        unsafe { owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, attributes)) }
            .map(Detached)
    }

    /// What is at `path`, with all that is mounted below (a user namespace may not leave that out).
    pub fn bind(path: &Path) -> io::Result<Detached> {
        let path = text(path.as_os_str().as_bytes())?;
        let flags = OPEN_TREE_CLONE | AT_RECURSIVE | libc::O_CLOEXEC as libc::c_uint;
        // SAFETY: the string outlives the call; the kernel returns a descriptor of ours.
        unsafe { owned(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags)) }
            .map(Detached)
    }

    /// Adds attributes to this mount and all below it.
    pub fn restrict(self, attributes: u64) -> io::Result<Detached> {
        let flags = AT_RECURSIVE | libc::AT_EMPTY_PATH as libc::c_uint;
        set_attributes(self.0.as_raw_fd(), c"".as_ptr(), flags, attributes)?;
        Ok(self)
    }

    /// Puts it at `path`, which must exist.
    pub fn place(self, path: &Path) -> io::Result<()> {
        let path = text(path.as_os_str().as_bytes())?;
        // SAFETY: both strings outlive the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_FDCWD,
                path.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        })
    }

    /// Writes a file of this file system, for example a sysctl of a proc that is mounted nowhere.
    pub fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.0, path, flags, nix::sys::stat::Mode::empty())?;
        nix::unistd::write(&file, contents)?;
        Ok(())
    }

    /// Whether this is a directory's mount (it can only be placed on one of the same sort).
    pub fn is_directory(&self) -> io::Result<bool> {
        let mode = nix::sys::stat::fstat(&self.0)?.st_mode;
        Ok(mode & libc::S_IFMT == libc::S_IFDIR)
    }
}

/// Adds attributes to the one mount at `path`.
pub fn restrict(path: &Path, attributes: u64) -> io::Result<()> {
    let path = text(path.as_os_str().as_bytes())?;
    set_attributes(libc::AT_FDCWD, path.as_ptr(), 0, attributes)
}

fn set_attributes(at: RawFd, path: *const libc::c_char, flags: libc::c_uint, set: u64) -> io::Result<()> {
    let attributes = Attributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: callers pass a live NUL-terminated path; the struct has the kernel's first layout and size.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at,
            path,
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// `result` is what a system call that makes a descriptor returned, and nobody else has taken it.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    check(result)?;
    // SAFETY: not negative, so a descriptor, and by the contract above ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}
