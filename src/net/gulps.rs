//! A socket read in larger pieces than TLS asks for.
//!
//! rustls asks for 4 KiB at a time, so a record of 16 KiB costs five system calls. Where such a read comes
//! back full there is more, and the next ones are taken from a larger one. A connection that rests holds
//! no buffer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// What one system call may bring: some records.
const GULP: usize = 128 * 1024;
/// A read that brought less has emptied the socket.
const LITTLE: usize = 4096;

/// A stream under a TLS connection.
#[derive(Debug)]
pub struct Gulps<S> {
    stream: S,
    held: BytesMut,
    /// The last read was filled: there is probably more.
    more: bool,
}

impl<S> Gulps<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, held: BytesMut::new(), more: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gulps<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() {
            if !this.more {
                let read = Pin::new(&mut this.stream).poll_read(cx, into);
                this.more = into.remaining() == 0;
                return read;
            }
            this.held.reserve(GULP);
            match poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.held) {
                Poll::Ready(Ok(size)) => this.more = size >= LITTLE,
                other => {
                    this.held = BytesMut::new();
                    return other.map_ok(|_| ());
                }
            }
        }
        let size = this.held.len().min(into.remaining());
        into.put_slice(&this.held[..size]);
        this.held.advance(size);
        if this.held.is_empty() && !this.more {
            this.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gulps<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_come_as_they_went_and_nothing_is_held_at_rest() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut gulps = Gulps::new(near);
        let sent: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
        far.write_all(&sent).await.unwrap();
        let (mut got, mut piece, mut most) = (Vec::new(), [0; 4096], 0);
        while got.len() < sent.len() {
            let size = gulps.read(&mut piece).await.unwrap();
            got.extend_from_slice(&piece[..size]);
            most = most.max(gulps.held.len());
        }
        assert_eq!(got, sent);
        assert!(most > 64 * 1024, "it read ahead: {most}");
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(10), gulps.read(&mut piece));
        assert!(waiting.await.is_err());
        assert_eq!(gulps.held.capacity(), 0);
        far.write_all(b"end").await.unwrap();
        drop(far);
        let mut rest = String::new();
        gulps.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "end");
    }
}
