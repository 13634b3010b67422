//! Small facts about this process.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::Backlog;
use nix::unistd::{Gid, Uid, setresgid, setresuid};

/// Restores the default for SIGPIPE, which Rust's start-up ignores, so that `minilab x | head` ends quietly.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// What `ps` shows as the command's name: at most 15 bytes.
pub fn set_name(name: &CStr) {
    // Fails only for a bad pointer.
    let _ = prctl::set_name(name);
}

/// Turns signals into something to poll. Children must start with an empty mask ([`super::child`] does).
pub fn signals(list: &[Signal]) -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    list.iter().for_each(|signal| set.add(*signal));
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Goes on as another user with root's capabilities still in effect.
///
/// A user namespace belongs to who makes it: under sudo that must be the invoking user, who is then
/// allowed in later without sudo, while its making may still need root's capability. The real uid stays
/// root's, so that nobody else may signal or trace this process.
pub fn act_for(uid: u32, gid: u32) -> io::Result<()> {
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // SAFETY: PR_SET_SECUREBITS takes a number, no pointer.
    nix::Error::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0) })?;
    setresgid(Gid::from_raw(0), Gid::from_raw(gid), Gid::from_raw(0))?;
    setresuid(Uid::from_raw(0), Uid::from_raw(uid), Uid::from_raw(0))?;
    Ok(())
}

/// Refuses connections until [`listen_long`]. The socket keeps its address: nobody else may bind it.
pub fn stop_listening(listener: impl AsFd) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::sockopt::{AcceptConn, ReuseAddr};
    use nix::sys::socket::{Shutdown, getsockopt, setsockopt, shutdown};
    // A socket that does not listen would be marked as read to its end, and those it accepts later too.
    if getsockopt(&listener, AcceptConn)? {
        shutdown(listener.as_fd().as_raw_fd(), Shutdown::Read)?;
        setsockopt(&listener, ReuseAddr, &false)?;
    }
    Ok(())
}

/// Lets many connections queue while nobody accepts: a role is being restarted.
pub fn listen_long(listener: impl AsFd) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::ReuseAddr};
    // Connections of before may still be ending on this address.
    setsockopt(&listener, ReuseAddr, &true)?;
    nix::sys::socket::listen(&listener.as_fd(), Backlog::MAXCONN)?;
    Ok(())
}

/// Gives back what only the start needed: free heap, and the pages of code that nobody runs any more. Code that
/// runs again comes back from the page cache by itself.
pub fn settle() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, end) in maps.lines().filter_map(code) {
        // SAFETY: the range is a mapping of this process that nobody writes to, private and of a file: what is
        // dropped of it is read from the same file again.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The range of a mapping of a file's code.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let of_file = words.next()? == "r-xp" && words.nth(3)?.starts_with('/');
    let number = |text: &str| usize::from_str_radix(text, 16).ok();
    if of_file { Some((number(start)?, number(end)?)) } else { None }
}

/// How much memory this process holds, as `VmRSS` has it.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_that_was_stopped_twice_keeps_its_address_and_serves_again() {
        // A port that the kernel chose would be given back; a lab's is one that was asked for.
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind(at).unwrap();
        stop_listening(&listener).unwrap();
        stop_listening(&listener).unwrap();
        assert!(TcpStream::connect(at).is_err());
        assert!(TcpListener::bind(at).is_err(), "somebody else took the address");
        listen_long(&listener).unwrap();
        let mut caller = TcpStream::connect(at).unwrap();
        caller.write_all(b"hello").unwrap();
        let mut word = [0; 5];
        listener.accept().unwrap().0.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"hello");
    }

    #[test]
    fn code_given_back_still_runs_and_only_code_is_given_back() {
        assert_eq!(
            code("00964000-0282b000 r-xp 00763000 fe:00 6219634   /usr/bin/a"),
            Some((0x964000, 0x282b000))
        );
        assert_eq!(code("0282b000-02934000 r--p 02629000 fe:00 6219634   /usr/bin/a"), None);
        assert_eq!(code("7ffd7a5f2000-7ffd7a5f4000 r-xp 00000000 00:00 0   [vdso]"), None);
        assert_eq!(code("7f00-7f10 r-xp 00000000 00:00 0"), None);
        let text = String::from("kept");
        settle();
        assert!(resident_bytes().is_some_and(|bytes| bytes > 0) && text == "kept");
    }
}
