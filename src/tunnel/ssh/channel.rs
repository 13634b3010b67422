//! One forwarded connection as a stream.
//!
//! russh gives a peer new room as soon as it has sent, not when somebody has read, and stops the whole
//! connection when one channel's messages are not taken. So that one reader who stands still does not stop a
//! node's every tunnel for ever, that one alone is closed after [`PATIENCE`] without progress.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use russh::Channel;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, WriteHalf};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a reader may take nothing while there is something for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// What waits for a reader here, beside what russh keeps.
const BUFFER: usize = 256 * 1024;

type Peer = russh::ChannelStream<russh::client::Msg>;

/// What was asked of a node's sshd, as if it had been dialled here.
pub struct Forwarded {
    read: DuplexStream,
    write: WriteHalf<Peer>,
    /// The channel closes when nobody holds this any more.
    _closes: DropGuard,
}

impl Forwarded {
    pub fn new(channel: Channel<russh::client::Msg>) -> Self {
        let (from, write) = tokio::io::split(channel.into_stream());
        let (to, read) = tokio::io::duplex(BUFFER);
        let gone = CancellationToken::new();
        tokio::spawn(gone.clone().run_until_cancelled_owned(carry(from, to, PATIENCE)));
        Self { read, write, _closes: gone.drop_guard() }
    }
}

/// Moves bytes until either side ends, or the far one takes nothing for too long.
pub async fn carry<R, W>(mut from: R, mut to: W, patience: Duration) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let mut left = &buffer[..count];
        while !left.is_empty() {
            let Ok(written) = tokio::time::timeout(patience, to.write(left)).await else {
                tracing::warn!(?patience, "closing a forwarded connection whose reader takes nothing");
                return Err(io::ErrorKind::TimedOut.into());
            };
            left = &left[written?..];
        }
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(context, buffer)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(context)
    }
}
