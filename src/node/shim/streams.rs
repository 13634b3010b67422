//! Standard input, output and error of a process the shim starts: pipes, or one terminal for all three.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::sys::{container, terminal};

/// Which streams somebody will hold the other end of; the rest lead to `/dev/null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Pipes of this many bytes, where the kernel's default is not enough.
    pub room: Option<i32>,
}

/// The outer ends.
#[derive(Debug, Default)]
pub struct Outer {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// The process's ends.
#[derive(Debug)]
pub struct Inner([OwnedFd; 3]);

/// Makes the pipes.
pub fn pipes(wanted: Wanted) -> io::Result<(Outer, Inner)> {
    let pipe = |wanted_here: bool| -> io::Result<Option<(OwnedFd, OwnedFd)>> {
        if !wanted_here {
            return Ok(None);
        }
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        if let Some(bytes) = wanted.room {
            // Refused to a user who has many large pipes already; then it stays as it is.
            let _ = fcntl(&read, FcntlArg::F_SETPIPE_SZ(bytes));
        }
        Ok(Some((read, write)))
    };
    let split = |ends: Option<(OwnedFd, OwnedFd)>| -> io::Result<(Option<OwnedFd>, OwnedFd)> {
        match ends {
            Some((outer, inner)) => Ok((Some(outer), inner)),
            None => Ok((None, File::options().read(true).write(true).open("/dev/null")?.into())),
        }
    };
    let (stdin, input) = split(pipe(wanted.stdin)?.map(|(read, write)| (write, read)))?;
    let (stdout, output) = split(pipe(wanted.stdout)?)?;
    let (stderr, error) = split(pipe(wanted.stderr)?)?;
    Ok((Outer { stdin, stdout, stderr }, Inner([input, output, error])))
}

/// A new terminal of this mount namespace's devpts, which becomes the session's own: its outer end and the
/// process's streams.
pub fn on_terminal(size: Option<(u16, u16)>) -> io::Result<(OwnedFd, Inner)> {
    let (outer, inner) = terminal::pair()?;
    if let Some((columns, rows)) = size {
        terminal::resize(&outer, (rows, columns))?;
    }
    container::control_terminal(&inner)?;
    let copy = || inner.as_fd().try_clone_to_owned();
    Ok((outer, Inner([copy()?, copy()?, inner])))
}

impl Inner {
    /// Lets the process's user open its streams by name (`/dev/stdout`), as runc does.
    pub fn belong_to(&self, uid: u32) {
        for fd in &self.0 {
            let kind = nix::sys::stat::fstat(fd).map(|meta| meta.st_mode & libc::S_IFMT);
            let ours = matches!(kind, Ok(libc::S_IFIFO)) || nix::unistd::isatty(fd).unwrap_or(false);
            if ours {
                // Where the user cannot own it, it can still use what it holds.
                let _ = nix::unistd::fchown(fd, Some(uid.into()), None);
            }
        }
    }

    /// Puts them at 0, 1 and 2.
    pub fn place(&self) -> io::Result<()> {
        container::place_stdio([&self.0[0], &self.0[1], &self.0[2]])
    }
}
