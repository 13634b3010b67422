//! One connection to a shim, from the kubelet's side.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

use super::protocol::{self, Answer, Call, LONGEST_LINE, Request, SandboxPaths};
use crate::sys::packet;

/// The number of the only request of a connection.
const NUMBER: u64 = 1;

/// Asks one thing on a connection of its own, so that nothing waits behind a stop with a long grace.
pub async fn exchange(paths: SandboxPaths, request: Request) -> io::Result<Answer> {
    let mut connection = Caller::connect(paths).await?;
    connection.send(request).await?;
    while let Some(answer) = connection.receive().await? {
        if answer.id == NUMBER {
            return Ok(answer);
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

pub struct Caller(BufReader<UnixStream>);

impl Caller {
    pub async fn connect(paths: SandboxPaths) -> io::Result<Caller> {
        Ok(Caller(BufReader::new(UnixStream::connect(paths.socket()).await?)))
    }

    pub async fn send(&mut self, request: Request) -> io::Result<()> {
        self.0.get_mut().write_all(&protocol::line(&Call { id: NUMBER, request })).await
    }

    /// The next answer; `None` when the shim closed the connection.
    pub async fn receive(&mut self) -> io::Result<Option<Answer>> {
        let mut line = Vec::new();
        let most = LONGEST_LINE as u64;
        if (&mut self.0).take(most).read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

/// A connection on which descriptors come: for one request whose answers take as long as what was asked for.
/// Dropping it tells the shim that nobody waits any more.
#[derive(Debug)]
pub struct Held {
    stream: UnixStream,
    received: Vec<u8>,
    beside: Vec<OwnedFd>,
}

impl Held {
    /// Sends the request.
    pub async fn ask(paths: SandboxPaths, request: Request) -> io::Result<Held> {
        let mut stream = UnixStream::connect(paths.socket()).await?;
        stream.write_all(&protocol::line(&Call { id: NUMBER, request })).await?;
        Ok(Held { stream, received: Vec::new(), beside: Vec::new() })
    }

    /// The next answer and what came with it. May be dropped while it waits and called again.
    pub async fn answer(&mut self) -> io::Result<(Answer, Vec<OwnedFd>)> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok((serde_json::from_slice(&line)?, std::mem::take(&mut self.beside)));
            }
            let mut buffer = [0; 4096];
            let read = || packet::receive_beside(&self.stream, &mut buffer);
            let (length, fds) = self.stream.async_io(Interest::READABLE, read).await?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&buffer[..length]);
            self.beside.extend(fds);
            if self.received.len() > LONGEST_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}
