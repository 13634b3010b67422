//! What a role inherits from the init that started it: listening sockets and a place to say "ready".
//!
//! Listeners follow systemd's convention (`LISTEN_FDS`, `LISTEN_FDNAMES`, first descriptor 3), so that a
//! listener outlives its role and clients queue in its backlog across a restart. Readiness is one line,
//! `READY=1`, on the descriptor named by `MINILAB_NOTIFY_FD`.

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Once;

/// The first descriptor passed, by systemd's convention.
pub const FIRST_LISTENER: RawFd = 3;

/// Takes the inherited listeners with their names. Answers nothing the second time.
pub fn listeners() -> Vec<(String, TcpListener)> {
    static TAKEN: Once = Once::new();
    let mut listeners = Vec::new();
    TAKEN.call_once(|| {
        let count: RawFd = number("LISTEN_FDS").unwrap_or(0);
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        for fd in FIRST_LISTENER..FIRST_LISTENER + count {
            let name = names.next().unwrap_or_default().to_owned();
            listeners.push((name, TcpListener::from(take(fd))));
        }
    });
    listeners
}

/// Takes a descriptor named by an environment variable, once per variable.
pub fn descriptor(variable: &str) -> Option<OwnedFd> {
    number(variable).map(take)
}

/// Tells the supervisor that this role serves now. Without a supervisor it does nothing.
pub fn ready() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        if let Some(fd) = descriptor("MINILAB_NOTIFY_FD") {
            // The supervisor may be going down; then nobody is left to tell.
            let _ = std::fs::File::from(fd).write_all(b"READY=1\n");
        }
    });
}

fn number(variable: &str) -> Option<RawFd> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Takes an inherited descriptor and keeps it from the children of this process.
fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the starter put this descriptor there for this process alone; each is taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let _ = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
    fd
}
