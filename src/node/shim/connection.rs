//! One kubelet's connection as the shim has it: lines in, lines out, never waiting for either.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::PollFlags;

use super::protocol::{self, Answer, Call, LONGEST_LINE};
use crate::sys::packet;

/// A reader this far behind is cut off: it can connect again and read the state.
const MOST_UNSENT: usize = 64 << 20;

pub struct Connection {
    pub number: u64,
    pub watches: bool,
    /// The request to answer when the shim ends.
    pub goodbye: Option<u64>,
    stream: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    closed: bool,
}

impl Connection {
    pub fn new(number: u64, stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        let (received, unsent) = (Vec::new(), Vec::new());
        Ok(Connection { number, watches: false, goodbye: None, stream, received, unsent, closed: false })
    }

    pub fn closed(&self) -> bool {
        self.closed
    }

    pub fn interest(&self) -> PollFlags {
        match self.unsent.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        }
    }

    /// Reads what is there and returns the whole requests among it, or the numbers of those this shim does
    /// not know; also sends what could not be sent before.
    pub fn receive(&mut self) -> Vec<Result<Call, u64>> {
        self.flush();
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(length) => {
                    self.received.extend_from_slice(&buffer[..length]);
                    if self.received.len() <= LONGEST_LINE {
                        continue;
                    }
                    self.closed = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.closed = true,
            }
            break;
        }
        let whole = self.received.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.received.drain(..whole).collect();
        let mut calls = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(call) => calls.push(Ok(call)),
                Err(error) => match serde_json::from_slice(line) {
                    Ok(Numbered { id }) => calls.push(Err(id)),
                    Err(_) => {
                        tracing::warn!(%error, "a request could not be understood");
                        self.closed = true;
                    }
                },
            }
        }
        calls
    }

    pub fn send(&mut self, answer: &Answer) {
        self.unsent.extend(protocol::line(answer));
        self.flush();
        self.closed |= self.unsent.len() > MOST_UNSENT;
    }

    /// As [`Connection::send`], with descriptors. Who has not read what was sent before gets none.
    pub fn give(&mut self, answer: &Answer, fds: &[BorrowedFd<'_>]) {
        self.flush();
        let bytes = protocol::line(answer);
        match self.unsent.is_empty() {
            true => match packet::send_beside(&self.stream, &bytes, fds) {
                Ok(taken) => self.unsent.extend_from_slice(&bytes[taken..]),
                Err(_) => self.closed = true,
            },
            false => self.closed = true,
        }
    }

    /// Writes as much as the other end takes now.
    pub fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }
}

/// As much of a request as every version has.
#[derive(serde::Deserialize)]
struct Numbered {
    id: u64,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
