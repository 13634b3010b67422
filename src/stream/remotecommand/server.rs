//! The serving end of exec and attach: one set of streams, whichever transport the client chose.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::super::spdy::{Session, Stream, StreamWriter};
use super::super::upgrade::{negotiate_spdy, negotiate_websocket, websocket_protocols};
use super::super::websocket::{Codec, Mux};
use super::super::{CREATION, Connection, IDLE, Reader, Refusal, StreamError, Writer, is_websocket};
use super::{Options, Outcome, Resizes, V1, V1_BASE64, V2, V3, V4, V4_BASE64, V5};

const WEBSOCKET: &[&str] = &["", V1, V1_BASE64, V4, V4_BASE64];
const SPDY: &[&str] = &[V4, V3, V2, V1];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Spdy(&'static str),
    WebSocket(&'static str),
}

/// A request that will be upgraded.
#[derive(Debug)]
pub struct Negotiated {
    transport: Transport,
    response: Response<()>,
    idle: Duration,
}

/// Decides how to serve a request, or with which words to refuse it. A client that names `v5` among
/// others gets it whatever its order, since upstream hands such a request to a server of `v5` alone.
pub fn negotiate(parts: &Parts) -> Result<Negotiated, Refusal> {
    if !is_websocket(&parts.headers) {
        let (protocol, response) = negotiate_spdy(&parts.headers, SPDY)?;
        return Ok(Negotiated { transport: Transport::Spdy(protocol), response, idle: IDLE });
    }
    let v5 = websocket_protocols(&parts.headers).contains(&V5);
    let supported = if v5 { &[V5][..] } else { WEBSOCKET };
    let (protocol, response) = negotiate_websocket(parts, supported)?;
    Ok(Negotiated { transport: Transport::WebSocket(protocol), response, idle: IDLE })
}

/// What the client's terminal or pipes are to the command. Take what is needed; what is left or dropped
/// is closed (output) or discarded (input).
pub struct Streams {
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    pub stderr: Option<Writer>,
    /// Only with a terminal.
    pub resize: Option<Resizes>,
    /// Cancelled when the connection is gone: nobody will read what the command still says.
    pub closed: CancellationToken,
    end: End,
}

/// Where the outcome goes.
enum End {
    WebSocket {
        mux: Mux,
        json: bool,
    },
    Spdy {
        session: Session,
        error: Stream,
        json: bool,
        /// Our ends of the streams we only read: closing one tells the client that the command is done.
        unused: Vec<StreamWriter>,
    },
}

impl Negotiated {
    /// The 101 to answer with.
    pub fn response(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.response.status();
        *response.headers_mut() = self.response.headers().clone();
        response
    }

    /// Closes the connection once nothing has come for so long.
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle, ..self }
    }

    /// The streams of `options` over the upgraded connection. A SPDY client creates them; it has 30 s.
    pub async fn serve(self, io: impl Connection, options: Options) -> Result<Streams, StreamError> {
        match self.transport {
            Transport::WebSocket(protocol) => Ok(websocket(io, protocol, options, self.idle).await),
            Transport::Spdy(protocol) => spdy(io, protocol, options, self.idle).await,
        }
    }
}

impl Streams {
    /// Says how it ended and closes: with 1000 on a WebSocket, with GOAWAY on SPDY. Returns when the
    /// client has closed too or had a quarter of an hour to read what was on its way.
    pub async fn finish(self, outcome: Outcome) {
        let Self { stdin, stdout, stderr, resize, end, .. } = self;
        drop((stdin, resize));
        for mut output in [stdout, stderr].into_iter().flatten() {
            // A client that is gone needs no end of its output.
            let _ = output.shutdown().await;
        }
        match end {
            End::WebSocket { mux, json } => {
                let status = outcome.encode(json);
                let last = (!status.is_empty()).then(|| (ERROR, Bytes::from(status)));
                mux.finish(last).await;
            }
            End::Spdy { session, mut error, json, unused } => {
                let written: io::Result<()> = async {
                    error.write_all(&outcome.encode(json)).await?;
                    error.shutdown().await
                }
                .await;
                if let Err(error) = written {
                    debug!(%error, "the client was gone before it heard the outcome");
                }
                drop(unused);
                session.close().await;
            }
        }
    }
}

async fn websocket(io: impl Connection, protocol: &str, options: Options, idle: Duration) -> Streams {
    let codec = if protocol.contains("base64") { Codec::Base64 } else { Codec::Binary };
    let readable = [options.stdin, false, false, false, true];
    let mut mux = Mux::server(io, codec, protocol == V5, &readable, idle).await;
    // An empty message on the lowest writable channel says that the connection stands.
    let lowest = match options {
        Options { stdout: true, .. } => STDOUT,
        Options { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    mux.send(lowest, Bytes::new());
    let resize = mux.reader(RESIZE).filter(|_| options.tty);
    Streams {
        stdin: mux.reader(STDIN),
        stdout: options.stdout.then(|| mux.writer(STDOUT)),
        stderr: options.stderr.then(|| mux.writer(STDERR)),
        resize: resize.map(Resizes::from_channel),
        closed: mux.closed(),
        end: End::WebSocket { mux, json: matches!(protocol, V5 | V4 | V4_BASE64) },
    }
}

/// The streams as the client opens them, by the name in their `streamType` header.
#[derive(Default)]
struct Opened {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Option<Stream>,
    resize: Option<Stream>,
}

impl Opened {
    fn slot(&mut self, kind: &str) -> Option<&mut Option<Stream>> {
        match kind {
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "error" => Some(&mut self.error),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }

    /// Waits until as many streams came as the options ask for.
    async fn wait(session: &mut Session, expected: usize) -> Result<Self, StreamError> {
        let mut opened = Self::default();
        let deadline = Instant::now() + CREATION;
        let mut received = 0;
        while received < expected {
            let next = timeout_at(deadline, session.accept()).await.map_err(|_| StreamError::Creation)?;
            let incoming = next.ok_or(StreamError::Closed)?;
            let kind = incoming.header("streamtype").unwrap_or_default().to_owned();
            let stream = incoming.accept();
            match opened.slot(&kind) {
                Some(slot) => {
                    *slot = Some(stream);
                    received += 1;
                }
                None => debug!(kind, "unexpected stream type"),
            }
        }
        Ok(opened)
    }
}

async fn spdy(
    io: impl Connection,
    protocol: &str,
    options: Options,
    idle: Duration,
) -> Result<Streams, StreamError> {
    let mut session = Session::server_idle(io, idle);
    let resizes = options.tty && matches!(protocol, V4 | V3);
    let wanted = [true, options.stdin, options.stdout, options.stderr, resizes];
    let expected = wanted.into_iter().filter(|wanted| *wanted).count();
    let opened = Opened::wait(&mut session, expected).await?;
    let error = opened.error.ok_or(StreamError::Creation)?;
    let mut unused = Vec::new();
    let mut input = |stream: Stream| {
        let (reader, writer) = stream.into_split();
        unused.push(writer);
        reader
    };
    let stdin = opened.stdin.map(&mut input);
    let resize = opened.resize.map(&mut input).map(Resizes::from_channel);
    let output = |stream: Stream| Box::new(stream.into_split().1) as Writer;
    Ok(Streams {
        stdin,
        stdout: opened.stdout.map(output),
        stderr: opened.stderr.map(output),
        resize,
        closed: session.closed(),
        end: End::Spdy { session, error, json: protocol == V4, unused },
    })
}
