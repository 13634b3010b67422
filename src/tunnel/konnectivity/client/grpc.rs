//! A tunnel by the gRPC frontend: one connection and one stream for each, as upstream's
//! `CreateSingleUseGrpcTunnel`.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::PollSender;
use tonic::{Request, Streaming};

use super::{joined, unreached};
use crate::net::{self, BoxStream, Dial, DialError, Dialing};
use crate::tunnel::konnectivity::packet::{DialRequest, Message, Packet};
use crate::tunnel::konnectivity::rpc::{self, CHUNK, Connection};

/// The client library's backstop.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// And how long its `Close` waits for the answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Dials through the server at a Unix socket.
pub struct Tunnels {
    socket: PathBuf,
}

impl Tunnels {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    async fn tunnel(&self, address: String) -> Result<BoxStream, DialError> {
        let failed = |text: String| DialError::Tunnel(text);
        let io = net::connect_unix(&self.socket).await.map_err(|error| unreached(&self.socket, &error))?;
        let (sender, outgoing) = mpsc::channel(2);
        let random = crate::tunnel::konnectivity::random();
        let request = DialRequest { protocol: "tcp".into(), address, random };
        let first = Message::DialRequest(request);
        sender.send(first).await.map_err(|_| failed("the stream has ended".into()))?;
        let body = rpc::Outgoing::of(outgoing);
        let opened = rpc::open(io, "localhost", rpc::PROXY, None, Request::new(body)).await;
        let opened = opened.map_err(|status| failed(status.message().to_owned()))?;
        let mut incoming = opened.incoming;
        let answer = loop {
            let packet = incoming.message().await.map_err(|status| failed(status.message().to_owned()))?;
            match packet.map(Message::from) {
                Some(Message::DialResponse(answer)) if answer.random == random => break answer,
                Some(Message::CloseDial { random: own }) if own == random => {
                    return Err(failed("dial closed".into()));
                }
                Some(_) => {}
                None => return Err(failed("tunnel is closed".into())),
            }
        };
        if !answer.error.is_empty() {
            return Err(failed(answer.error));
        }
        Ok(Box::new(Tunnel {
            id: answer.connect_id,
            incoming,
            arrived: Bytes::new(),
            ended: false,
            outgoing: PollSender::new(sender),
            closing: Closing::Open,
            _connection: opened.connection,
        }))
    }
}

impl Dial for Tunnels {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move {
            match timeout(DIAL_TIMEOUT, self.tunnel(joined(host, port))).await {
                Ok(outcome) => outcome,
                Err(_) => Err(DialError::Tunnel("dial timeout, backstop".into())),
            }
        })
    }
}

/// A connection through the tunnel. Dropped, its stream ends, and the server has the far end closed.
struct Tunnel {
    id: i64,
    incoming: Streaming<Packet>,
    arrived: Bytes,
    ended: bool,
    outgoing: PollSender<Message>,
    closing: Closing,
    _connection: Connection,
}

/// Neither upstream nor the protocol knows a half-closed tunnel: shutting down one way closes it.
enum Closing {
    Open,
    Asked(Pin<Box<tokio::time::Sleep>>),
    Done,
}

impl Tunnel {
    /// The next bytes; nothing at the end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            let packet = match ready!(Pin::new(&mut self.incoming).poll_next(cx)) {
                Some(Ok(packet)) => packet,
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(status.message().to_owned()))),
                // A server that goes is an error, not an orderly end.
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            };
            match Message::from(packet) {
                Message::Data(data) if data.connect_id == self.id && !data.data.is_empty() => {
                    return Poll::Ready(Ok(Some(data.data)));
                }
                Message::CloseResponse { id, error } if id == self.id && error.is_empty() => {
                    return Poll::Ready(Ok(None));
                }
                Message::CloseResponse { id, error } if id == self.id => {
                    return Poll::Ready(Err(io::Error::other(error)));
                }
                _ => {}
            }
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.arrived.is_empty() && !self.ended {
            match ready!(self.poll_bytes(cx))? {
                Some(bytes) => self.arrived = bytes,
                None => self.ended = true,
            }
        }
        let length = self.arrived.len().min(buffer.remaining());
        buffer.put_slice(&self.arrived[..length]);
        self.arrived.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        if !matches!(self.closing, Closing::Open) || self.ended {
            return Poll::Ready(Err(broken()));
        }
        ready!(self.outgoing.poll_reserve(cx)).map_err(|_| broken())?;
        let length = bytes.len().min(CHUNK);
        let message = Message::data(self.id, Bytes::copy_from_slice(&bytes[..length]));
        self.outgoing.send_item(message).map_err(|_| broken())?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Asks for the end and waits for the answer, so that nothing written before is lost.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let over = this.ended || !this.arrived.is_empty();
            match &mut this.closing {
                Closing::Done => return Poll::Ready(Ok(())),
                Closing::Open if this.ended => this.closing = Closing::Done,
                Closing::Open => {
                    let id = this.id;
                    if ready!(this.outgoing.poll_reserve(cx)).is_err()
                        || this.outgoing.send_item(Message::CloseRequest { id }).is_err()
                    {
                        this.closing = Closing::Done;
                    } else {
                        this.closing = Closing::Asked(Box::pin(tokio::time::sleep(CLOSE_TIMEOUT)));
                    }
                }
                Closing::Asked(_) if over => this.closing = Closing::Done,
                Closing::Asked(limit) => {
                    if limit.as_mut().poll(cx).is_ready() {
                        this.closing = Closing::Done;
                        continue;
                    }
                    match ready!(this.poll_bytes(cx)) {
                        // Still to be read; the end comes after it.
                        Ok(Some(bytes)) => this.arrived = bytes,
                        Ok(None) | Err(_) => this.ended = true,
                    }
                }
            }
        }
    }
}
