//! A byte stream inside WebSocket messages: each binary message is a piece of it.
//!
//! Stands for client-go's `TunnelingConnection`, in which kubectl carries SPDY through proxies that know
//! only WebSockets.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::Connection;

/// The longest message sent.
const LONGEST_SENT: usize = 256 * 1024;

/// One end of a tunnel.
pub struct Tunnel<C> {
    socket: WebSocketStream<C>,
    front: Bytes,
    closing: bool,
}

impl<C: Connection> Tunnel<C> {
    /// The end that took the connection.
    pub async fn server(io: C) -> Self {
        Self::new(io, Role::Server).await
    }

    async fn new(io: C, role: Role) -> Self {
        let socket = WebSocketStream::from_raw_socket(io, role, Some(super::config())).await;
        Self { socket, front: Bytes::new(), closing: false }
    }
}

#[cfg(test)]
impl<C: Connection> Tunnel<C> {
    /// The end that made it: kubectl's.
    pub async fn client(io: C) -> Self {
        Self::new(io, Role::Client).await
    }
}

impl<C: Connection> AsyncRead for Tunnel<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.front.is_empty() {
            match ready!(this.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.front = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(invalid("invalid message type received")));
                }
                // Pings and closes are answered by the library as it reads on.
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed)) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let count = this.front.len().min(buffer.remaining());
        buffer.put_slice(&this.front[..count]);
        this.front.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<C: Connection> AsyncWrite for Tunnel<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.socket.poll_ready_unpin(cx)).map_err(io_error)?;
        let data = &data[..data.len().min(LONGEST_SENT)];
        this.socket.start_send_unpin(Message::Binary(Bytes::copy_from_slice(data))).map_err(io_error)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().socket.poll_flush_unpin(cx).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            ready!(this.socket.poll_ready_unpin(cx)).map_err(io_error)?;
            this.closing = true;
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            match this.socket.start_send_unpin(Message::Close(Some(frame))) {
                // The other end may have closed first.
                Ok(()) | Err(Error::ConnectionClosed | Error::Protocol(_)) => {}
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
        match ready!(this.socket.poll_flush_unpin(cx)) {
            Ok(()) | Err(Error::ConnectionClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
