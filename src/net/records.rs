//! A TLS connection read one record at a time.
//!
//! Go's connections are: a read never gives more than one record, so a copy loop writes what came together
//! on together. Clients count on it without knowing: the official Python client waits on the socket for its
//! next WebSocket frame, and never sees one that its TLS library has already read with the one before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// A record cannot be longer. One that is as long may be followed by the next in one read: whoever writes
/// the two on together makes the same two records again.
const LONGEST: usize = 16 * 1024;

/// A stream whose reads end where the peer's records do.
#[derive(Debug)]
pub struct Records<S>(pub S);

impl<S: AsyncBufRead + Unpin> AsyncRead for Records<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            let record = match Pin::new(&mut self.0).poll_fill_buf(cx) {
                // What was read comes first; the reason why no more does stays where it is.
                Poll::Pending | Poll::Ready(Err(_)) if into.filled().len() > before => break,
                other => ready!(other)?,
            };
            let size = record.len().min(into.remaining());
            into.put_slice(&record[..size]);
            Pin::new(&mut self.0).consume(size);
            if size < LONGEST || into.remaining() < LONGEST {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Records<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Direct, Identity, Protocols, ServingCert, TlsDialer, Verify, client_config};
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn two_records_that_came_together_are_read_one_by_one() {
        let pair = crate::pki::self_signed_serving("x").unwrap();
        let cert = Identity { cert_pem: pair.cert_pem.into(), key_pem: pair.key_pem.into() };
        let config = ServingCert::new(&cert).unwrap().server_config(Protocols::H1).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await.unwrap();
            stream.write_all(b"one").await.unwrap();
            stream.write_all(b"two").await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let config = client_config(&Verify::Unverified, None, Protocols::H1).unwrap();
        let dialer = TlsDialer { road: Arc::new(Direct), config };
        let mut stream = Records(dialer.connect("127.0.0.1", port, None).await.unwrap());
        serving.await.unwrap();
        let mut buffer = [0; 100];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 3);
        assert_eq!(stream.read(&mut buffer[..2]).await.unwrap(), 2);
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 1);
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
    }
}
