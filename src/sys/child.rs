//! Starting processes: namespaces, descriptors in their places, session, death with the parent.
//!
//! `std::process::Command` cannot make namespaces, and opens `/dev/null`, which an empty root lacks.
//! A program that cannot be executed says so on its standard error and ends with 127, as in a shell.

use std::convert::Infallible;
use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Gid, Pid, Uid};

/// Which terminal a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// Its parent's.
    Same,
    /// None.
    New,
    /// Its standard input, which becomes the controlling terminal of a new session.
    NewOnTerminal,
}

/// A process to start.
#[derive(Debug)]
pub struct Spawn {
    pub program: String,
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Descriptors and the numbers they get. Of the others, 0 to 2 are kept and the rest closed.
    pub fds: Vec<(OwnedFd, RawFd)>,
    pub namespaces: CloneFlags,
    /// SIGKILL when the starting thread ends. Start it from a thread that lives as long as the process.
    pub dies_with_parent: bool,
    pub session: Session,
    pub directory: Option<String>,
}

/// A started process.
#[derive(Debug)]
pub struct Child {
    pub pid: Pid,
    /// Readable when the process has ended.
    pub pidfd: OwnedFd,
}

/// Holds a child in a new user namespace back until its ids are mapped. Dropping it ends the child.
#[derive(Debug)]
pub struct Gate(OwnedFd);

impl Gate {
    /// Lets the child become root in its namespace and go on.
    pub fn open(self) -> io::Result<()> {
        nix::unistd::write(&self.0, b"+")?;
        Ok(())
    }
}

impl Spawn {
    /// A process that runs `argv` with an empty environment; everything else as in its parent.
    pub fn new(program: impl Into<String>, argv: Vec<String>) -> Spawn {
        Spawn {
            program: program.into(),
            argv,
            env: Vec::new(),
            fds: Vec::new(),
            namespaces: CloneFlags::empty(),
            dies_with_parent: false,
            session: Session::Same,
            directory: None,
        }
    }

    /// Starts it. Only from a process with one thread.
    pub fn start(self) -> io::Result<Child> {
        self.launch(None)
    }

    /// Starts it in a new user namespace, where it waits for its maps.
    pub fn start_gated(self) -> io::Result<(Child, Gate)> {
        let (wait, open) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let gate = Gate(open);
        let child = self.launch(Some((wait, &gate)))?;
        Ok((child, gate))
    }

    fn launch(self, gate: Option<(OwnedFd, &Gate)>) -> io::Result<Child> {
        let program = Program::new(&self)?;
        let mut pidfd: RawFd = -1;
        let flags = self.namespaces.bits() | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: without CLONE_VM and with no stack given this is fork; the child of a single-threaded
        // process may do anything; the kernel writes one descriptor to `pidfd`.
        let pid = unsafe {
            libc::syscall(libc::SYS_clone, flags as libc::c_long, 0, &raw mut pidfd, 0, 0) as libc::pid_t
        };
        match pid {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let error = match self.become_it(gate, &program) {
                    Ok(never) => match never {},
                    Err(error) => error,
                };
                let text = format!("cannot execute {}: {error}\n", self.program);
                // SAFETY: descriptor 2 is open or the write fails; _exit never returns and runs nothing.
                unsafe {
                    libc::write(2, text.as_ptr().cast(), text.len());
                    libc::_exit(127)
                }
            }
            // SAFETY: the kernel made this descriptor for us by CLONE_PIDFD.
            pid => Ok(Child { pid: Pid::from_raw(pid), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
        }
    }

    /// In the child: everything between fork and exec.
    fn become_it(&self, gate: Option<(OwnedFd, &Gate)>, program: &Program) -> io::Result<Infallible> {
        if self.dies_with_parent {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
        }
        if let Some((wait, gate)) = gate {
            // Our copy of the parent's end would hide the parent's death.
            nix::unistd::close(gate.0.as_raw_fd())?;
            become_root_when_mapped(&wait)?;
            if self.dies_with_parent {
                // A change of user forgets it.
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        // Rust programs ignore it, and what is ignored stays so across exec.
        super::process::default_sigpipe();
        if self.session != Session::Same {
            nix::unistd::setsid()?;
        }
        self.place_descriptors()?;
        if self.session == Session::NewOnTerminal {
            // SAFETY: TIOCSCTTY takes a number, no pointer.
            nix::errno::Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        if let Some(directory) = &program.directory {
            nix::unistd::chdir(directory.as_c_str())?;
        }
        Ok(nix::unistd::execve(&program.path, &program.argv, &program.env)?)
    }

    fn place_descriptors(&self) -> io::Result<()> {
        let above = self.fds.iter().map(|(_, target)| target + 1).max().unwrap_or(3).max(3);
        let mut lifted = Vec::with_capacity(self.fds.len());
        for (fd, target) in &self.fds {
            // SAFETY: copies a descriptor we own to a free number at or above `above`.
            let high = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) };
            lifted.push((nix::errno::Errno::result(high)?, *target));
        }
        // SAFETY: in a child about to exec; nothing here uses the closed numbers again.
        unsafe {
            libc::syscall(libc::SYS_close_range, above, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            for unused in (3..above).filter(|fd| !lifted.iter().any(|(_, target)| target == fd)) {
                libc::close(unused);
            }
            for (high, target) in lifted {
                nix::errno::Errno::result(libc::dup2(high, target))?;
            }
        }
        Ok(())
    }
}

fn become_root_when_mapped(gate: &OwnedFd) -> io::Result<()> {
    let mut byte = [0];
    if nix::unistd::read(gate, &mut byte)? == 0 {
        return Err(io::Error::other("the parent gave up"));
    }
    // Refused where setgroups is denied, and then there is nothing to drop that matters.
    let _ = nix::unistd::setgroups(&[]);
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    Ok(())
}

/// What exec wants, made before the fork.
struct Program {
    path: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    directory: Option<CString>,
}

impl Program {
    fn new(spawn: &Spawn) -> Result<Program, NulError> {
        let words = |list: &[String]| -> Result<Vec<CString>, NulError> {
            list.iter().map(|word| CString::new(word.as_str())).collect()
        };
        let env: Vec<String> = spawn.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(Program {
            path: CString::new(spawn.program.as_str())?,
            argv: words(&spawn.argv)?,
            env: words(&env)?,
            directory: spawn.directory.as_deref().map(CString::new).transpose()?,
        })
    }
}
