//! Moving bytes from one connection to another: the API server's pass-through after an upgrade.
//!
//! Stands for the two copies of upstream's `UpgradeAwareHandler`. Buffers are fixed, so a reader that
//! stalls stops its own source and nothing else.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// One buffer a direction. Large enough that a system call's cost does not show.
const BUFFER: usize = 128 * 1024;

/// Copies both ways until both are done or either fails; the end of one direction is passed on as a
/// half-close. Returns how many bytes went from `a` to `b` and back.
pub async fn splice<A, B>(mut a: A, mut b: B) -> io::Result<(u64, u64)>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER).await
}

/// Copies until `from` ends and flushes; does not close `to`. What a process's pipe and a stream want:
/// tokio's own `copy` has a buffer of 8 KiB.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_half_close_is_passed_on_and_the_other_way_stays_open() {
        let (mut left, a) = tokio::io::duplex(1000);
        let (b, mut right) = tokio::io::duplex(1000);
        let copying = tokio::spawn(splice(a, b));
        left.write_all(b"question").await.unwrap();
        left.shutdown().await.unwrap();
        let mut heard = String::new();
        right.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        right.write_all(b"an answer").await.unwrap();
        drop(right);
        let mut answer = String::new();
        left.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "an answer");
        assert_eq!(copying.await.unwrap().unwrap(), (8, 9));
    }
}
