//! The asking end over SPDY: what the API server is to a kubelet that takes no WebSocket.
//!
//! Stands for `client-go/tools/remotecommand`'s SPDY executor.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::spdy::{Session, Stream, StreamWriter};
use super::super::{CREATION, Connection, Reader, StreamError, Writer};
use super::{Options, Outcome, V1, V2, V3, V4, V5};

/// What the request offers, in this order, one `X-Stream-Protocol-Version` header each.
pub const PROTOCOLS: [&str; 5] = [V5, V4, V3, V2, V1];
/// client-go's period for connections that carry commands.
const PING_PERIOD: Duration = Duration::from_secs(5);
/// An outcome is a Status; a longer one is cut.
const LONGEST_OUTCOME: u64 = 1 << 20;

/// The command's pipes as the asking end sees them.
pub struct ClientStreams {
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    pub resize: Option<ResizeWriter>,
    pub end: End,
}

/// The connection, and the stream that says how the command ended.
pub struct End {
    error: Reader,
    json: bool,
    session: Session,
    /// Our ends of the streams we only read; and the pings.
    _unused: Vec<StreamWriter>,
    _pings: DropGuard,
}

/// Sends window sizes.
pub struct ResizeWriter(StreamWriter);

impl ResizeWriter {
    pub async fn send(&mut self, (columns, rows): (u16, u16)) -> Result<(), StreamError> {
        let text = format!("{}\n", json!({"Width": columns, "Height": rows}));
        Ok(self.0.write_all(text.as_bytes()).await?)
    }
}

/// Creates the streams of `options` on an upgraded connection, in client-go's order. `protocol` is what
/// the answer's `X-Stream-Protocol-Version` says; an old server says nothing.
pub async fn connect(
    io: impl Connection,
    protocol: Option<&str>,
    options: Options,
) -> Result<ClientStreams, StreamError> {
    let protocol = protocol.unwrap_or(V1);
    let session = Session::client(io);
    let open = async |kind: &str| -> Result<Stream, StreamError> {
        let headers = [("streamtype", kind)];
        timeout(CREATION, session.open(&headers)).await.map_err(|_| StreamError::Creation)?
    };
    let mut unused = Vec::new();
    let mut input = |stream: Stream| {
        let (reader, writer) = stream.into_split();
        unused.push(writer);
        reader
    };
    let (error, mut error_writer) = open("error").await?.into_split();
    error_writer.shutdown().await?;
    let stdin = match options.stdin {
        true => Some(Box::new(open("stdin").await?.into_split().1) as Writer),
        false => None,
    };
    let stdout = if options.stdout { Some(input(open("stdout").await?)) } else { None };
    let stderr = if options.stderr && !options.tty { Some(input(open("stderr").await?)) } else { None };
    let resize = match options.tty && matches!(protocol, V5 | V4 | V3) {
        true => Some(ResizeWriter(open("resize").await?.into_split().1)),
        false => None,
    };
    let json = matches!(protocol, V5 | V4);
    let pings = keep_alive(&session);
    let end = End { error, json, session, _unused: unused, _pings: pings };
    Ok(ClientStreams { stdin, stdout, stderr, resize, end })
}

impl End {
    /// Waits for the outcome and closes the connection: read all output first.
    pub async fn outcome(mut self) -> Outcome {
        let mut text = Vec::new();
        let read = (&mut self.error).take(LONGEST_OUTCOME).read_to_end(&mut text).await;
        let outcome = match read {
            Err(error) => Outcome::Error(format!("error reading from error stream: {error}")),
            Ok(_) if self.json => Outcome::decode(&text),
            Ok(0) => Outcome::Success,
            Ok(_) => {
                Outcome::Error(format!("error executing remote command: {}", String::from_utf8_lossy(&text)))
            }
        };
        drop(self.session);
        outcome
    }
}

/// Pings until the guard is dropped; as in client-go a lost answer has no consequence of its own.
fn keep_alive(session: &Session) -> DropGuard {
    let (stop, closed, ping) = (CancellationToken::new(), session.closed(), session.pinger());
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                () = closed.cancelled() => return,
                () = tokio::time::sleep(PING_PERIOD) => ping.send(),
            }
        }
    });
    stop.drop_guard()
}
