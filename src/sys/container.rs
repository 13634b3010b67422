//! Making and joining the namespaces of a pod, and the last steps of a process before it is the container's.
//!
//! Everything here is for single-threaded processes (the shim and what it forks).

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::Pid;

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Parent(Pid),
    Child,
}

/// fork, with new namespaces for the child and, with `CLONE_PARENT`, the caller's parent for a parent.
pub fn fork(flags: CloneFlags) -> io::Result<Side> {
    // CLONE_PARENT takes the exit signal from the caller, and the kernel wants none given with it.
    let signal = if flags.contains(CloneFlags::CLONE_PARENT) { 0 } else { libc::SIGCHLD };
    // SAFETY: no CLONE_VM and no stack, so this is fork; the caller has one thread, so the child may go on.
    match unsafe { libc::syscall(libc::SYS_clone, (flags.bits() | signal) as libc::c_long, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(Pid::from_raw(pid as libc::pid_t))),
    }
}

/// Ends a forked child at once, running nothing of its parent's.
pub fn leave(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// A process as a descriptor: readable when it has ended, and a way into its namespaces.
pub fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the kernel returns a descriptor of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    // SAFETY: not negative here, so a descriptor nobody else has.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }) }
}

/// Dies with the process that forked this one. After the last change of identity: those clear it.
pub fn die_with_parent() -> io::Result<()> {
    Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Unblocks what the shim blocks for itself, hears what it ignores, and leaves its session.
pub fn fresh_session() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    nix::unistd::setsid()?;
    Ok(())
}

/// Lets this process write its own id maps; joining a namespace may have taken that away.
pub fn be_dumpable() -> io::Result<()> {
    Ok(prctl::set_dumpable(true)?)
}

/// Keeps whoever shares its pid namespace from reading this process's memory and descriptors until it
/// executes its program.
pub fn be_closed() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// Makes a terminal this session's own.
pub fn control_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number, no pointer.
    match unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Puts descriptors at standard input, output and error.
pub fn place_stdio(stdio: [&OwnedFd; 3]) -> io::Result<()> {
    // Lifted first: one of them may sit on another's number.
    let lifted: Vec<OwnedFd> = stdio.iter().map(|fd| lift(fd.as_raw_fd())).collect::<io::Result<_>>()?;
    for (fd, number) in lifted.iter().zip(0..) {
        place(fd, number)?;
    }
    Ok(())
}

/// Puts a descriptor at a number, where it survives exec.
pub fn place(fd: &OwnedFd, number: RawFd) -> io::Result<()> {
    // SAFETY: replaces what is at `number`, which in a process about to exec nobody uses any more.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn lift(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: copies a descriptor to a free number of at least 10.
    let high = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) };
    // SAFETY: not negative here, so a descriptor nobody else has.
    if high < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(high) }) }
}

/// Keeps every other descriptor from the program that is executed next.
pub fn close_others_on_exec(first: RawFd) {
    // Where the call is missing the descriptors are close-on-exec anyway: this is the second lock.
    // SAFETY: only marks descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Becomes the program. Returns only when that fails.
pub fn exec(path: &str, argv: &[String], env: &[(String, String)]) -> io::Result<Infallible> {
    let words = |list: &mut dyn Iterator<Item = String>| -> io::Result<Vec<CString>> {
        list.map(|word| CString::new(word).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))).collect()
    };
    let path = words(&mut std::iter::once(path.to_owned()))?.remove(0);
    let argv = words(&mut argv.iter().cloned())?;
    let env = words(&mut env.iter().map(|(name, value)| format!("{name}={value}")))?;
    Ok(nix::unistd::execve(&path, &argv, &env)?)
}

/// The ids a user namespace knows, as `/proc/PID/uid_map` lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids(Vec<(u32, u32)>);

impl Ids {
    /// This process's users (`uid_map`) or groups (`gid_map`).
    pub fn own(file: &str) -> io::Result<Ids> {
        Ok(Ids::parse(&fs::read_to_string(format!("/proc/self/{file}"))?))
    }

    fn parse(text: &str) -> Ids {
        let line = |line: &str| {
            let mut words = line.split_whitespace().map(|word| word.parse().ok());
            let (first, _outside, count) = (words.next()??, words.next()?, words.next()??);
            Some((first, count))
        };
        Ids(text.lines().filter_map(line).collect())
    }

    /// Whether there is no other id than root's: then a process cannot become another user here.
    pub fn only_root(&self) -> bool {
        matches!(self.0[..], [(0, 1)])
    }

    pub fn contains(&self, id: u32) -> bool {
        self.0.iter().any(|(first, count)| id.checked_sub(*first).is_some_and(|offset| offset < *count))
    }

    /// A map that shows a child namespace the same ids.
    fn identity(&self) -> String {
        self.0.iter().map(|(first, count)| format!("{first} {first} {count}\n")).collect()
    }
}

/// Gives a child in a new user namespace the same ids its parent has.
pub fn map_identically(pid: Pid) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), Ids::own("uid_map")?.identity())?;
    fs::write(format!("/proc/{pid}/gid_map"), Ids::own("gid_map")?.identity())
}

/// Enters one more user namespace, in which this process, root until now, is `uid` and `gid` and nothing else
/// exists. How a container gets a user of its own where the lab has only one id.
pub fn become_only(uid: u32, gid: u32) -> io::Result<()> {
    be_dumpable()?;
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
    be_dumpable()?;
    // Denied already in a lab without privileges; then the write is refused and nothing is lost.
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/gid_map", format!("{gid} 0 1"))?;
    fs::write("/proc/self/uid_map", format!("{uid} 0 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_two_ranges_is_repeated_as_it_is_seen_inside() {
        let ids = Ids::parse("         0       1001          1\n         1     100000      65536\n");
        assert_eq!(ids.identity(), "0 0 1\n1 1 65536\n");
        assert!(ids.contains(65536) && !ids.contains(65537) && !ids.only_root());
        assert!(Ids::parse("0 1001 1").only_root());
    }
}
