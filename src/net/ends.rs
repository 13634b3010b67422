//! A dialled connection whose errors say between which addresses it was, as Go's `net.OpError` does.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// `read tcp 198.51.100.2:40000->192.0.2.11:10250: read: connection reset by peer`
#[derive(Debug, thiserror::Error)]
#[error("{doing} tcp {from}->{to}: {doing}: {why}")]
pub(super) struct OpError {
    doing: &'static str,
    from: SocketAddr,
    to: SocketAddr,
    why: String,
}

/// A connection that knows its ends.
pub(super) struct Ends {
    stream: TcpStream,
    from: SocketAddr,
    to: SocketAddr,
}

impl Ends {
    pub(super) fn of(stream: TcpStream, to: SocketAddr) -> Self {
        let from = stream.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
        Self { stream, from, to }
    }

    fn named(&self, doing: &'static str, error: io::Error) -> io::Error {
        let Some(number) = error.raw_os_error() else { return error };
        let why = Errno::from_raw(number).desc().to_lowercase();
        io::Error::new(error.kind(), OpError { doing, from: self.from, to: self.to, why })
    }
}

impl AsyncRead for Ends {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        read.map_err(|error| self.named("read", error))
    }
}

impl AsyncWrite for Ends {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        written.map_err(|error| self.named("write", error))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        written.map_err(|error| self.named("write", error))
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
    use super::super::{Dial, Direct, go_text};
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_reset_says_between_whom() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut stream = Direct.dial("127.0.0.1", address.port()).await.ok().unwrap();
        let (accepted, from) = listener.accept().await.unwrap();
        nix::sys::socket::setsockopt(
            &accepted,
            nix::sys::socket::sockopt::Linger,
            &nix::libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
        drop(accepted);
        let error = stream.read_u8().await.unwrap_err();
        let want = format!("read tcp {from}->{address}: read: connection reset by peer");
        assert_eq!((go_text(&error), super::super::io_text(&error)), (want.clone(), want));
    }
}
