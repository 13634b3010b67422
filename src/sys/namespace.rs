//! Namespaces as things one can hold, make and visit.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, alive as long as this is (or a process or socket is in it).
#[derive(Debug)]
pub struct Network(OwnedFd);

impl Network {
    /// A new one with nothing but `lo`, down.
    ///
    /// Only the calling thread visits it meanwhile; it returns to where it was.
    pub fn fresh() -> io::Result<Network> {
        let home = Network::current()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        let fresh = Network::current();
        setns(&home.0, CloneFlags::CLONE_NEWNET)?;
        fresh
    }

    /// The calling thread's.
    pub fn current() -> io::Result<Network> {
        Ok(Network(File::open("/proc/thread-self/ns/net")?.into()))
    }

    /// The one a process is in.
    pub fn of(pid: u32) -> io::Result<Network> {
        Ok(Network(File::open(format!("/proc/{pid}/ns/net"))?.into()))
    }

    /// A TCP socket of this namespace that does not block, connected to nothing yet.
    pub fn tcp_socket(&self, v6: bool) -> io::Result<OwnedFd> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(self.enter(|| socket(family, SockType::Stream, flags, None))??)
    }

    /// Runs `work` with the calling thread inside. Sockets made there stay there.
    ///
    /// Never inside a runtime whose tasks could run on this thread meanwhile: `work` must not await.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = Network::current()?;
        setns(&self.0, CloneFlags::CLONE_NEWNET)?;
        let result = work();
        setns(&home.0, CloneFlags::CLONE_NEWNET)?;
        Ok(result)
    }
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
pub use tests::in_private_namespaces;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork, getegid, geteuid};

    /// Runs a test's body in a child with user, mount and network namespaces of its own, in which it is
    /// root, whoever runs the tests.
    pub fn in_private_namespaces(body: impl FnOnce() + std::panic::UnwindSafe) {
        let (uid, gid) = (geteuid(), getegid());
        // SAFETY: the child is single-threaded and ends with _exit; glibc's fork keeps malloc usable.
        match unsafe { fork() }.expect("fork works") {
            ForkResult::Child => {
                let passed = std::panic::catch_unwind(|| {
                    let flags =
                        CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
                    unshare(flags).expect("user namespaces are allowed here");
                    std::fs::write("/proc/self/setgroups", "deny").unwrap();
                    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
                    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
                    body();
                });
                // SAFETY: ends the child without running the parent's destructors or test harness.
                unsafe { libc::_exit(i32::from(passed.is_err())) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
    }

    #[test]
    fn a_fresh_network_is_another_one_and_the_thread_comes_back() {
        in_private_namespaces(|| {
            let inode = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
            let home = inode();
            let fresh = Network::fresh().unwrap();
            assert_ne!(fresh.enter(inode).unwrap(), home);
            assert_eq!(inode(), home);
        });
    }
}
