//! Who listens to a running container, as its shim has it: pipes that carry what the container prints.
//!
//! A listener that does not read makes the container wait, as containerd's does, for as long as its connection
//! lives: `kubectl run -i … | less` loses nothing. Only once the pod is to go are those who stay behind given up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::log::Source;

/// How long a listener may still take once the pod is to go.
const FAREWELL: Duration = Duration::from_secs(5);
/// What a listener's pipe holds, where the kernel allows it.
const ROOM: i32 = 256 * 1024;

/// One session on a container.
#[derive(Debug)]
pub struct Attachment {
    /// The connection it belongs to, and the request on it.
    pub connection: u64,
    pub call: u64,
    listeners: Vec<Listener>,
    /// When who is still behind is given up.
    until: Option<Instant>,
}

/// One stream of it.
#[derive(Debug)]
struct Listener {
    source: Source,
    pipe: OwnedFd,
    /// What the pipe did not take.
    unsent: Vec<u8>,
}

impl Attachment {
    /// A session that hears the given streams; the ends to read from.
    pub fn new(connection: u64, call: u64, sources: &[Source]) -> io::Result<(Attachment, Vec<OwnedFd>)> {
        let mut listeners = Vec::new();
        let mut ends = Vec::new();
        for source in sources {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            // Refused to a user who has many large pipes already; then it stays as it is.
            let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(ROOM));
            listeners.push(Listener { source: *source, pipe: write, unsent: Vec::new() });
            ends.push(read);
        }
        Ok((Attachment { connection, call, listeners, until: None }, ends))
    }

    /// Passes on what the container printed.
    pub fn hear(&mut self, source: Source, bytes: &[u8]) {
        for listener in self.listeners.iter_mut().filter(|one| one.source == source) {
            listener.unsent.extend_from_slice(bytes);
        }
        self.flush();
    }

    /// Writes what the listeners take now, and gives up those that are gone, or too late for the pod's end.
    pub fn flush(&mut self) {
        let late = self.until.is_some_and(|until| until <= Instant::now());
        self.listeners.retain_mut(|listener| {
            while !listener.unsent.is_empty() {
                match nix::unistd::write(&listener.pipe, &listener.unsent) {
                    Ok(length) => drop(listener.unsent.drain(..length)),
                    Err(nix::Error::EINTR) => {}
                    Err(nix::Error::EAGAIN) => return !late,
                    Err(_) => return false,
                }
            }
            true
        });
    }

    /// No more will come: every pipe whose rest is sent is closed.
    pub fn finish(&mut self) {
        self.flush();
        self.listeners.retain(|listener| !listener.unsent.is_empty());
    }

    /// The pod is to go.
    pub fn farewell(&mut self) {
        self.until.get_or_insert_with(|| Instant::now() + FAREWELL);
    }

    /// Whether more of this stream would be too much now.
    pub fn is_behind(&self, source: Source) -> bool {
        self.listeners.iter().any(|listener| listener.source == source && !listener.unsent.is_empty())
    }

    /// The pipes that are waited for, and until when.
    pub fn behind(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Option<Instant>)> {
        let behind = self.listeners.iter().filter(|listener| !listener.unsent.is_empty());
        behind.map(|listener| (listener.pipe.as_fd(), self.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_listener_is_waited_for_until_the_pod_is_to_go() {
        let both = [Source::Stdout, Source::Stderr];
        let (mut session, mut ends) = Attachment::new(1, 1, &both).unwrap();
        session.hear(Source::Stdout, b"one");
        session.hear(Source::Stderr, b"other");
        let much = vec![b'x'; 2 * ROOM as usize];
        session.hear(Source::Stderr, &much);
        assert!(session.is_behind(Source::Stderr) && !session.is_behind(Source::Stdout));
        assert_eq!(session.behind().next().unwrap().1, None, "as long as it lives");
        session.hear(Source::Stdout, b" more");
        session.until = Some(Instant::now() + FAREWELL);
        session.farewell();
        session.flush();
        assert!(session.behind().next().is_some(), "it has a while");
        session.until = Some(Instant::now());
        session.flush();
        assert!(session.behind().next().is_none(), "the pod goes");
        session.finish();
        let mut text = String::new();
        std::fs::File::from(ends.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one more");
    }
}
