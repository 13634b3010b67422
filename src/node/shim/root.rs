//! A container's root: an overlay over its image, its own /proc, /sys and /dev, and the pod's volumes.
//!
//! Built by the container's first process, in mount and pid namespaces of its own, in three steps: collect
//! every mount as a descriptor while the node's files are visible, pivot, put each in its place. So every
//! path of image and pod is resolved inside the container. What is masked and read-only is runc's list.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::protocol::Refusal;
use crate::sys::mountfd::{self, Detached, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY};

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const DEVICE_LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq"];

/// Not even a privileged container writes these: where root started the lab, some are the machine's.
const READ_ONLY_ALWAYS: &[&str] = &["/proc/sys", "/proc/sysrq-trigger"];

/// What a root is made of.
#[derive(Debug, Clone)]
pub struct Root {
    /// An empty directory to build on.
    pub mount_point: PathBuf,
    /// Image layers, the uppermost first.
    pub layers: Vec<PathBuf>,
    /// Holds the writable layer.
    pub writable: PathBuf,
    pub mounts: Vec<RootMount>,
    pub shared_memory: PathBuf,
    pub privileged: bool,
    pub read_only: bool,
}

/// A file or directory of the node shown in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootMount {
    pub from: PathBuf,
    pub to: PathBuf,
    pub read_only: bool,
}

impl Root {
    /// Builds it and makes it this process's root.
    pub fn enter(&self) -> Result<(), Refusal> {
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)
            .map_err(|error| refused("make mounts private", error))?;
        self.mount_overlay()?;
        let pieces = Pieces::collect(self)?;
        pivot(&self.mount_point).map_err(|error| refused("pivot_root", error))?;
        pieces.place(self)
    }

    fn mount_overlay(&self) -> Result<(), Refusal> {
        let (upper, work) = (self.writable.join("upper"), self.writable.join("work"));
        for directory in [&upper, &work] {
            fs::create_dir_all(directory).map_err(|error| refused("make the writable layer", error))?;
        }
        // Else the container's root would have the mode of whatever umask made this directory.
        fs::set_permissions(&upper, Permissions::from_mode(0o755))
            .map_err(|error| refused("make the writable layer", error))?;
        let layers: Vec<String> = self.layers.iter().map(|layer| layer.display().to_string()).collect();
        // volatile: the end of a container must not wait for the disk.
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr,volatile",
            layers.join(":"),
            upper.display(),
            work.display()
        );
        mount(Some("overlay"), &self.mount_point, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .map_err(|error| {
                let on = self.writable.display();
                let remedy =
                    "the file system of the state directory must be able to hold an overlay's upper layer";
                refused(&format!("failed to mount rootfs component: overlay on {on} ({remedy})"), error)
            })
    }
}

/// Every mount of a root, before it is in its place.
struct Pieces {
    proc: Detached,
    sys: Option<Detached>,
    queues: Option<Detached>,
    shared_memory: Detached,
    devices: Vec<(&'static str, Detached)>,
    mounts: Vec<(Detached, RootMount)>,
}

impl Pieces {
    fn collect(root: &Root) -> Result<Pieces, Refusal> {
        let plain = NO_SUID | NO_DEV | NO_EXEC;
        let proc = Detached::new("proc", &[], plain).map_err(|error| refused("mount proc", error))?;
        // A sysfs of the pod's network; where the node shows only part of its own, that part; else none.
        let sys = Detached::new("sysfs", &[], plain | if root.privileged { 0 } else { READ_ONLY })
            .or_else(|_| Detached::bind(Path::new("/sys"))?.restrict(READ_ONLY | plain))
            .ok();
        let queues = Detached::new("mqueue", &[], plain).ok();
        let shared_memory = Detached::bind(&root.shared_memory)
            .and_then(|mount| mount.restrict(plain))
            .map_err(|error| refused("mount /dev/shm", error))?;
        let mut devices = Vec::with_capacity(DEVICES.len());
        for name in DEVICES {
            // A machine without one of them starts containers all the same.
            devices.extend(Detached::bind(&Path::new("/dev").join(name)).ok().map(|device| (*name, device)));
        }
        let mut mounts = Vec::with_capacity(root.mounts.len());
        for wanted in &root.mounts {
            let failed = |error| mount_failed(wanted, error);
            let made = Detached::bind(&wanted.from).map_err(failed)?;
            let made = if wanted.read_only { made.restrict(READ_ONLY).map_err(failed)? } else { made };
            mounts.push((made, wanted.clone()));
        }
        // Parents before children, in the pod's order otherwise.
        mounts.sort_by_key(|(_, wanted)| wanted.to.components().count());
        Ok(Pieces { proc, sys, queues, shared_memory, devices, mounts })
    }

    fn place(self, root: &Root) -> Result<(), Refusal> {
        put_directory(self.proc, "/proc").map_err(|error| refused("mount /proc", error))?;
        if let Some(sys) = self.sys {
            put_directory(sys, "/sys").map_err(|error| refused("mount /sys", error))?;
        }
        place_devices(self.devices, self.queues, self.shared_memory)
            .map_err(|error| refused("make /dev", error))?;
        for (made, wanted) in self.mounts {
            place_mount(made, &wanted.to).map_err(|error| mount_failed(&wanted, error))?;
        }
        let hide = || -> io::Result<()> {
            let (masked, read_only) =
                if root.privileged { (&[][..], &[][..]) } else { (MASKED, READ_ONLY_PATHS) };
            masked.iter().try_for_each(|path| mask(Path::new(path)))?;
            let paths = read_only.iter().chain(READ_ONLY_ALWAYS);
            paths
                .map(Path::new)
                .filter(|path| path.exists())
                .try_for_each(|path| Detached::bind(path)?.restrict(READ_ONLY)?.place(path))
        };
        hide().map_err(|error| refused("mask kernel files", error))?;
        if root.read_only {
            mountfd::restrict(Path::new("/"), READ_ONLY)
                .map_err(|error| refused("make the root file system read-only", error))?;
        }
        Ok(())
    }
}

fn place_devices(
    devices: Vec<(&str, Detached)>,
    queues: Option<Detached>,
    shared_memory: Detached,
) -> io::Result<()> {
    let dev = Detached::new("tmpfs", &[("mode", "755"), ("size", "64k")], NO_SUID)?;
    put_directory(dev, "/dev")?;
    for (name, device) in devices {
        let path = Path::new("/dev").join(name);
        File::create(&path)?;
        device.place(&path)?;
    }
    let terminals = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "620")];
    put_directory(new_terminals(&terminals)?, "/dev/pts")?;
    put_directory(shared_memory, "/dev/shm")?;
    if let Some(queues) = queues {
        put_directory(queues, "/dev/mqueue")?;
    }
    DEVICE_LINKS.iter().try_for_each(|(target, link)| symlink(target, link))
}

/// A devpts; group 5 owns its terminals where it exists, as on a real node.
fn new_terminals(options: &[(&str, &str)]) -> io::Result<Detached> {
    let options: Vec<_> = options.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
    let with_group: Vec<_> = options.iter().copied().chain([("gid", "5")]).collect();
    let attributes = NO_SUID | NO_EXEC;
    Detached::new("devpts", &with_group, attributes)
        .or_else(|_| Detached::new("devpts", &options, attributes))
}

fn put_directory(mount: Detached, path: &str) -> io::Result<()> {
    let path = Path::new(path);
    // A link here is the image's attempt to have it elsewhere.
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(io::Error::other(format!("{} is not a directory in the image", path.display()))),
        Err(_) => fs::create_dir_all(path)?,
    }
    mount.place(path)
}

fn place_mount(mount: Detached, path: &Path) -> io::Result<()> {
    if mount.is_directory()? {
        fs::create_dir_all(path)?;
    } else if !path.exists() {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        File::create(path)?;
    }
    mount.place(path)
}

fn mask(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => {
            Detached::new("tmpfs", &[("mode", "555"), ("size", "4k")], READ_ONLY)?.place(path)
        }
        Ok(_) => Detached::bind(Path::new("/dev/null"))?.place(path),
        // Nothing to hide.
        Err(_) => Ok(()),
    }
}

fn pivot(root: &Path) -> nix::Result<()> {
    nix::unistd::chdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    // The old root lies on top of the new one now.
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")
}

fn refused(step: &str, error: impl std::fmt::Display) -> Refusal {
    let runc = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                container process: error during container init";
    Refusal::create(format!("{runc}: {step}"), error)
}

fn mount_failed(wanted: &RootMount, error: io::Error) -> Refusal {
    let step = format!("error mounting {:?} to rootfs at {:?}", wanted.from, wanted.to);
    match error.raw_os_error() {
        Some(libc::ENOTDIR | libc::EISDIR) => refused(
            &step,
            format!(
                "{error}: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
            ),
        ),
        _ => refused(&step, error),
    }
}
