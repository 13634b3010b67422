//! One forwarded connection: bytes both ways between a stream and a socket of the pod.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt};

use super::super::{Reader, pump};

/// Copies both ways until the pod's side has ended, and the client's too if it still can be heard.
///
/// An end of one direction is passed on as a half-close. A pod that takes no more input may still
/// answer, so only a client that resets, or a pod whose answer breaks off, cuts the connection.
pub async fn relay<W, S>(mut client: Reader, to_client: &mut W, pod: S) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_pod, to_pod) = tokio::io::split(pod);
    let up = upload(&mut client, to_pod);
    let down = async {
        pump(&mut from_pod, to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

async fn upload(client: &mut Reader, mut pod: impl AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let piece = client.fill_buf().await?;
        if piece.is_empty() {
            // Already closed is as good.
            let _ = pod.shutdown().await;
            return Ok(());
        }
        let count = piece.len();
        if pod.write_all(piece).await.is_err() {
            return Ok(());
        }
        client.consume(count);
    }
}
