//! Who listens to a running container, as its shim has it: pipes that carry what the container prints.
//!
//! A listener that does not read in time makes the container wait for a moment, so that a quick one loses
//! nothing; one that stays behind is given up, because a container must never hang on its audience.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::log::Source;

/// How long a listener may take for what was read from the container at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// What a listener's pipe holds, where the kernel allows it.
const ROOM: i32 = 256 * 1024;

/// One session on a container.
#[derive(Debug)]
pub struct Attachment {
    /// The connection it belongs to, and the request on it.
    pub connection: u64,
    pub call: u64,
    listeners: Vec<Listener>,
}

/// One stream of it.
#[derive(Debug)]
struct Listener {
    source: Source,
    pipe: OwnedFd,
    /// What the pipe did not take, and since when.
    unsent: Vec<u8>,
    since: Instant,
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
            listeners.push(Listener {
                source: *source,
                pipe: write,
                unsent: Vec::new(),
                since: Instant::now(),
            });
            ends.push(read);
        }
        Ok((Attachment { connection, call, listeners }, ends))
    }

    /// Passes on what the container printed.
    pub fn hear(&mut self, source: Source, bytes: &[u8]) {
        for listener in self.listeners.iter_mut().filter(|one| one.source == source) {
            if listener.unsent.is_empty() {
                listener.since = Instant::now();
            }
            listener.unsent.extend_from_slice(bytes);
        }
        self.flush();
    }

    /// Writes what the listeners take now, and gives up those that are gone or took too long.
    pub fn flush(&mut self) {
        self.listeners.retain_mut(|listener| {
            while !listener.unsent.is_empty() {
                match nix::unistd::write(&listener.pipe, &listener.unsent) {
                    Ok(length) => drop(listener.unsent.drain(..length)),
                    Err(nix::Error::EINTR) => {}
                    Err(nix::Error::EAGAIN) => return listener.since.elapsed() < PATIENCE,
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

    /// Whether more of this stream would be too much now.
    pub fn is_behind(&self, source: Source) -> bool {
        self.listeners.iter().any(|listener| listener.source == source && !listener.unsent.is_empty())
    }

    /// The pipes that are waited for, and until when.
    pub fn behind(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Instant)> {
        let behind = self.listeners.iter().filter(|listener| !listener.unsent.is_empty());
        behind.map(|listener| (listener.pipe.as_fd(), listener.since + PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_listener_gets_everything_and_one_that_does_not_read_is_given_up_within_a_second_or_so() {
        let both = [Source::Stdout, Source::Stderr];
        let (mut session, mut ends) = Attachment::new(1, 1, &both).unwrap();
        session.hear(Source::Stdout, b"one");
        session.hear(Source::Stderr, b"other");
        let much = vec![b'x'; 2 * ROOM as usize];
        session.hear(Source::Stderr, &much);
        assert!(session.is_behind(Source::Stderr) && !session.is_behind(Source::Stdout));
        let deadline = session.behind().next().unwrap().1;
        assert!(deadline <= Instant::now() + PATIENCE);
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        session.flush();
        assert!(session.behind().next().is_none(), "the container goes on");
        session.hear(Source::Stdout, b" more");
        session.finish();
        let mut text = String::new();
        std::fs::File::from(ends.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one more");
    }
}
