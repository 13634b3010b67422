//! The root of a host: what is seen from inside, and nothing else of the machine.
//!
//! Programs come from the machine's `/usr`, read-only; `/etc`, `/var`, `/root` and `/home` are the host's
//! own and kept; `/run` and `/tmp` are empty at every start; `/dev`, `/proc` and `/sys` show the host.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use super::order::Blueprint;
use crate::sys::mount::{self, Detached, MountError};

/// The names the binary answers to inside a host, beside `minilab`.
pub const LINKS: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "csr-approver",
    "kubelet",
    "kube-proxy",
    "coredns",
    "kube-network-policies",
    "konnectivity-server",
    "konnectivity-agent",
    "sshd",
    "proxy-server",
    "proxy-agent",
    "kubeadm",
    "phone-home",
    "attacker",
    "containerd-shim",
    "pause",
];

/// Where the links are.
pub const BIN: &str = "/opt/minilab/bin";

/// The environment every process of a host starts with.
pub const PATH: &str = "/opt/minilab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kept between runs.
const KEPT: &[&str] = &["etc", "var", "root", "home"];
/// Programs and libraries: links where the machine has links into `/usr`, else shown read-only.
const SYSTEM: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
/// Files of the machine that its programs need and that name nothing private.
const SHARED: &[&str] = &["/etc/alternatives", "/etc/ld.so.cache"];
/// Where distributions keep the trusted certificates; the first that exists is shown.
const TRUST: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificates this machine trusts.
pub fn trust() -> Option<&'static Path> {
    TRUST.iter().map(Path::new).find(|path| path.exists())
}

/// What could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot set the host's name")]
    Name { source: nix::Error },
}

/// Where the machine's root is seen while the host's is made.
const MACHINE: &str = "/.machine";

/// Makes the root and goes there. Only in mount, pid, ipc and uts namespaces of one's own.
///
/// What lies in the kept trees belongs to whoever was root in the host, who may have planted links: they
/// are walked only when the machine's root is out of sight and every link leads back into the host.
pub fn build(blueprint: &Blueprint) -> Result<(), RootError> {
    mount::make_private()?;
    let root = &blueprint.root;
    mount::tmpfs(root, "mode=755,size=16m")?;
    directory(&root.join(&MACHINE[1..]))?;
    mount::pivot(root, &root.join(&MACHINE[1..]))?;
    system()?;
    kept(&blueprint.kept)?;
    scratch()?;
    devices()?;
    kernel()?;
    binary(&blueprint.binary)?;
    let later = later(&blueprint.binds)?;
    mount::detach(Path::new(MACHINE))?;
    fs::remove_dir(MACHINE).map_err(made(MACHINE))?;
    for name in ["/var/lib", "/var/log", "/var/cache", "/var/tmp", "/etc/kubernetes", "/run/lock"] {
        directory(Path::new(name))?;
    }
    link("/run", Path::new("/var/run"))?;
    for (tree, to, is_directory) in later {
        match is_directory {
            true => directory(&to)?,
            false => {
                directory(to.parent().unwrap_or(Path::new("/")))?;
                mount::place_for_file(&to)?;
            }
        }
        tree.attach(&to)?;
    }
    nix::unistd::sethostname(&blueprint.host).map_err(|source| RootError::Name { source })?;
    etc(blueprint)
}

/// The machine's `path`, as seen while the root is made.
fn machine(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    Path::new(MACHINE).join(path.strip_prefix("/").unwrap_or(path))
}

fn system() -> Result<(), RootError> {
    directory(Path::new("/usr"))?;
    mount::bind_read_only(&machine("/usr"), Path::new("/usr"))?;
    for name in SYSTEM {
        let (there, here) = (machine(name), Path::new("/").join(name));
        match fs::read_link(&there) {
            Ok(target) => link(target, &here)?,
            Err(_) if there.is_dir() => {
                directory(&here)?;
                mount::bind_read_only(&there, &here)?;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn kept(kept: &Path) -> Result<(), RootError> {
    for name in KEPT {
        let (from, to) = (machine(kept).join(name), Path::new("/").join(name));
        directory(&from)?;
        directory(&to)?;
        mount::bind(&from, &to)?;
    }
    Ok(())
}

fn scratch() -> Result<(), RootError> {
    for name in ["/run", "/tmp", "/mnt", "/srv", "/media"] {
        directory(Path::new(name))?;
    }
    mount::tmpfs(Path::new("/tmp"), "mode=1777")?;
    unmasked_proc()?;
    Ok(mount::tmpfs(Path::new("/run"), "mode=755")?)
}

/// The kernel lets a pod's user namespace mount proc only while a proc with nothing over it is in its mount
/// namespace, and the host's own has a read-only `/proc/sys`. This one lies under `/run`, which covers it,
/// so that no path leads there; being there is enough.
fn unmasked_proc() -> Result<(), RootError> {
    mount::tmpfs(Path::new("/run"), "mode=700,size=4k")?;
    directory(Path::new("/run/proc"))?;
    Ok(mount::proc(Path::new("/run/proc"))?)
}

fn devices() -> Result<(), RootError> {
    let dev = Path::new("/dev");
    directory(dev)?;
    mount::tmpfs(dev, "mode=755,size=64k")?;
    for name in DEVICES {
        mount::place_for_file(&dev.join(name))?;
        mount::bind(&machine("/dev").join(name), &dev.join(name))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        link(target, &dev.join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        directory(&dev.join(name))?;
    }
    mount::devpts(&dev.join("pts"))?;
    mount::tmpfs(&dev.join("shm"), "mode=1777")?;
    Ok(mount::mqueue(&dev.join("mqueue"))?)
}

fn kernel() -> Result<(), RootError> {
    let (proc, proc_sys, sys) = (Path::new("/proc"), Path::new("/proc/sys"), Path::new("/sys"));
    directory(proc)?;
    mount::proc(proc)?;
    // Root on the machine stays root there for vm.* and fs.*, in whatever namespace it is.
    mount::bind_read_only(proc_sys, proc_sys)?;
    directory(sys)?;
    // Refused inside containers that hide parts of it; nothing of the lab's needs it.
    if let Err(error) = mount::sysfs(sys) {
        tracing::debug!(%error, "No /sys in this host");
    }
    Ok(())
}

fn binary(binary: &Path) -> Result<(), RootError> {
    let bin = Path::new(BIN);
    directory(bin)?;
    mount::place_for_file(&bin.join("minilab"))?;
    mount::bind_read_only(&machine(binary), &bin.join("minilab"))?;
    LINKS.iter().try_for_each(|name| link("minilab", &bin.join(name)))
}

/// What is to be shown inside the kept trees: the copy, its place, whether it is a directory.
fn later(binds: &[(PathBuf, PathBuf)]) -> Result<Vec<(Detached, PathBuf, bool)>, RootError> {
    let mut later = Vec::new();
    for (from, to) in binds {
        let from = machine(from);
        directory(&from)?;
        later.push((Detached::copy(&from)?, to.clone(), true));
    }
    let trust = TRUST.iter().find(|path| machine(path).exists());
    let trust = trust.map(|from| (*from, "/etc/ssl/certs/ca-certificates.crt"));
    for (from, to) in SHARED.iter().map(|path| (*path, *path)).chain(trust) {
        let from = machine(from);
        if from.exists() {
            later.push((Detached::copy(&from)?.read_only()?, to.into(), from.is_dir()));
        }
    }
    Ok(later)
}

/// The files every machine has. What a learner changed stays, but for the names of the hosts.
fn etc(blueprint: &Blueprint) -> Result<(), RootError> {
    let hosts = blueprint.names.iter().fold("127.0.0.1\tlocalhost\n".to_owned(), |mut text, (ip, name)| {
        let _ = writeln!(text, "{ip}\t{name}");
        text
    });
    directory(Path::new("/etc/ssl"))?;
    write("/etc/hosts", &hosts)?;
    write("/etc/hostname", &format!("{}\n", blueprint.host))?;
    for (path, text) in [
        (
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        ),
        ("/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ("/etc/resolv.conf", "# There is no way out of the lab, and no resolver for its hosts.\n"),
        ("/etc/profile", PROFILE),
        // openssl makes no request without one, whatever its command line says.
        ("/etc/ssl/openssl.cnf", "[req]\ndistinguished_name = name\n[name]\n"),
    ] {
        if !Path::new(path).exists() {
            write(path, text)?;
        }
    }
    // As `systemd-machine-id-setup` makes it, once for ever; the kubelet reports it.
    if !Path::new("/etc/machine-id").exists() {
        write("/etc/machine-id", &format!("{}\n", uuid::Uuid::new_v4().simple()))?;
    }
    if !Path::new("/etc/os-release").exists() {
        link("../usr/lib/os-release", Path::new("/etc/os-release"))?;
    }
    Ok(())
}

const PROFILE: &str = "\
export PATH=/opt/minilab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PS1='root@'$(hostname 2>/dev/null || cat /etc/hostname)':$PWD# '
";

fn made(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> RootError {
    move |source| RootError::Make { path: path.as_ref().to_owned(), source }
}

fn directory(path: &Path) -> Result<(), RootError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(made(path))
}

/// A link that is already there is kept: it may be the learner's.
fn link(target: impl AsRef<Path>, at: &Path) -> Result<(), RootError> {
    match symlink(target, at) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(made(at)(error)),
        _ => Ok(()),
    }
}

fn write(path: &str, text: &str) -> Result<(), RootError> {
    fs::write(path, text).map_err(made(path))
}
