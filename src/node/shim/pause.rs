//! `pause`: the pod process. It holds the pod's namespaces open, reaps where it is pid 1, and does nothing else.
//!
//! Its root is an empty directory and it has no capability, so a container that shares its pid namespace
//! finds nothing to climb through in `/proc/1/root`.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::spec::SandboxSpec;
use crate::sys::capabilities::Capabilities;
use crate::sys::container;
use crate::sys::inherit;
use crate::sys::mountfd::{Detached, READ_ONLY};
use crate::sys::packet::PacketSocket;

/// What pause says when the namespaces are as asked for.
pub const READY: &[u8] = b"ready";

/// Names the descriptor to say it on.
const READY_FD: &str = "MINILAB_PAUSE_FD";
const READY_NUMBER: i32 = 3;

/// In the forked child: the pod's own settings, then pause's program. Never returns.
pub fn start(spec: &SandboxSpec, own: CloneFlags, bin: &Path, shim: PacketSocket) -> ! {
    let result = become_pause(spec, own, bin, &shim);
    let Err(error) = result;
    // When the shim cannot hear it any more, it does not matter.
    let _ = shim.send(error.to_string().as_bytes(), &[]);
    container::leave(1)
}

fn become_pause(
    spec: &SandboxSpec,
    own: CloneFlags,
    bin: &Path,
    shim: &PacketSocket,
) -> io::Result<Infallible> {
    container::die_with_parent()?;
    shim.receive()?.ok_or_else(|| io::Error::other("the shim gave up"))?;
    container::fresh_session()?;
    if own.contains(CloneFlags::CLONE_NEWUTS) {
        nix::unistd::sethostname(&spec.hostname)?;
    }
    set_sysctls(spec, own)?;
    container::be_dumpable()?;
    let copy = std::os::fd::AsFd::as_fd(shim).try_clone_to_owned()?;
    container::place(&copy, READY_NUMBER)?;
    container::close_others_on_exec(READY_NUMBER + 1);
    container::die_with_parent()?;
    let program = bin.join("pause").display().to_string();
    container::exec(&program, &["/pause".into()], &[(READY_FD.into(), READY_NUMBER.to_string())])
}

/// Writes the pod's sysctls through a proc of its own: the node's is read-only.
fn set_sysctls(spec: &SandboxSpec, own: CloneFlags) -> io::Result<()> {
    let own_network = own.contains(CloneFlags::CLONE_NEWNET);
    if spec.sysctls.is_empty() && !own_network {
        return Ok(());
    }
    let proc = Detached::new("proc", &[], 0)?;
    let write = |name: &str, value: &str| {
        proc.write(&Path::new("sys").join(name.replace('.', "/")), value.as_bytes())
            .map_err(|error| io::Error::new(error.kind(), format!("sysctl \"{name}\": {error}")))
    };
    if own_network {
        // containerd's default since 2.0: any user of a pod may bind any port.
        write("net.ipv4.ip_unprivileged_port_start", "0")?;
    }
    spec.sysctls.iter().try_for_each(|(name, value)| write(name, value))
}

/// The role: what runs under the name `pause`.
pub fn run(_argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let mut waited = SigSet::empty();
    waited.add(Signal::SIGCHLD);
    waited.add(Signal::SIGTERM);
    waited.add(Signal::SIGINT);
    waited.thread_block()?;
    if let Some(fd) = inherit::descriptor(READY_FD) {
        let shim = PacketSocket::from(fd);
        if let Err(error) = retreat() {
            shim.send(error.to_string().as_bytes(), &[])?;
            return Ok(ExitCode::FAILURE);
        }
        shim.send(READY, &[])?;
    }
    loop {
        match waited.wait()? {
            Signal::SIGCHLD => {
                while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    if status == WaitStatus::StillAlive {
                        break;
                    }
                }
            }
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Leaves the node's files and gives up all capabilities.
fn retreat() -> io::Result<()> {
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing)?;
    let empty = Detached::new("tmpfs", &[("mode", "555"), ("size", "4k")], READ_ONLY)?;
    // Any directory will do: it is covered in this mount namespace only.
    empty.place(Path::new("/run"))?;
    nix::unistd::chdir("/run")?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Capabilities::none().bound()?;
    Capabilities::none().set()?;
    // Setting capabilities is a change of identity to the kernel.
    container::die_with_parent()
}
