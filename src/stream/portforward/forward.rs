//! One forwarded connection: bytes both ways between a stream and a socket of the pod.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::super::{Reader, pump};

/// How long a client may go on sending to a pod that has said all, as in containerd. Older clients end
/// nothing themselves until they have heard the end of both streams.
const GRACE: Duration = Duration::from_secs(1);

/// Copies both ways until the pod's side has ended; the end of the client's is passed on as a half-close.
///
/// A pod that takes no more input may still answer, so only a client that resets, or a pod whose answer
/// breaks off, cuts the connection.
pub async fn relay<W, S>(mut client: Reader, to_client: &mut W, pod: S) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_pod, to_pod) = tokio::io::split(pod);
    let mut up = pin!(upload(&mut client, to_pod));
    let mut down = pin!(async {
        pump(&mut from_pod, to_client).await?;
        to_client.shutdown().await
    });
    tokio::select! {
        sent = &mut up => {
            sent?;
            down.await
        }
        answered = &mut down => {
            answered?;
            // Everything was said; how the client takes it is its business.
            let _ = timeout(GRACE, up).await;
            Ok(())
        }
    }
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
