//! One connection to a shim, from the kubelet's side.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::protocol::{self, Answer, Call, LONGEST_LINE, Request, SandboxPaths};

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
