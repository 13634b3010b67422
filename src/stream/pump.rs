//! Moving bytes from a process's pipe or a pod's socket to a stream and back.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::websocket::LONGEST_SENT;

/// One buffer a direction. Large enough that a system call's cost does not show, and a whole number of the
/// longest messages.
const BUFFER: usize = 2 * LONGEST_SENT;

/// Copies until `from` ends and flushes; does not close `to`. tokio's own `copy` has a buffer of 8 KiB.
pub async fn pump<R, W>(from: &mut R, to: &mut W) -> io::Result<u64>
where
    R: AsyncRead + Unpin + ?Sized,
    W: AsyncWrite + Unpin + ?Sized,
{
    let mut buffer = vec![0; BUFFER];
    let mut copied = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            to.flush().await?;
            return Ok(copied);
        }
        to.write_all(&buffer[..count]).await?;
        copied += count as u64;
    }
}
