//! A WebSocket client on one side, a kubelet that speaks SPDY on the other.
//!
//! Stands for the API server's `StreamTranslatorHandler`: the client's WebSocket is answered first, so
//! whatever fails afterwards reaches it on the error channel.

use tokio::io::AsyncWriteExt;

use super::super::{Connection, Reader, StreamError, Writer};
use super::client::{ClientStreams, connect};
use super::{Options, Outcome, Streams};

/// Joins `client` with a kubelet over `backend`, an upgraded connection whose answer named `protocol`,
/// until the command has ended: how, for the client. Nothing: the client is gone.
pub async fn translate(
    client: &mut Streams,
    backend: impl Connection,
    protocol: Option<&str>,
    options: Options,
) -> Option<Outcome> {
    let gone = client.closed.clone();
    let outcome = tokio::select! {
        outcome = run(client, backend, protocol, options) => outcome,
        () = gone.cancelled() => return None,
    };
    Some(outcome.unwrap_or_else(|error| Outcome::Error(error.to_string())))
}

async fn run(
    client: &mut Streams,
    backend: impl Connection,
    protocol: Option<&str>,
    options: Options,
) -> Result<Outcome, StreamError> {
    let ClientStreams { stdin, stdout, stderr, resize, end } = connect(backend, protocol, options).await?;
    let input = async {
        if let (Some(mut from), Some(mut to)) = (client.stdin.take(), stdin) {
            // A command may close its input early; how it ends is told elsewhere.
            let _ = tokio::io::copy_buf(&mut from, &mut to).await;
            let _ = to.shutdown().await;
            // Until the end: a client that still types is read, as upstream does.
            let _ = tokio::io::copy_buf(&mut from, &mut tokio::io::sink()).await;
        }
        std::future::pending::<Outcome>().await
    };
    let sizes = async {
        if let (Some(mut from), Some(mut to)) = (client.resize.take(), resize) {
            while let Some(size) = from.recv().await {
                if to.send(size).await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<Outcome>().await
    };
    let output = async {
        tokio::try_join!(copy(stdout, client.stdout.as_mut()), copy(stderr, client.stderr.as_mut()))?;
        Ok(end.outcome().await)
    };
    tokio::select! {
        outcome = output => outcome,
        // Neither of these ends.
        outcome = input => Ok(outcome),
        outcome = sizes => Ok(outcome),
    }
}

async fn copy(from: Option<Reader>, to: Option<&mut Writer>) -> Result<(), StreamError> {
    if let (Some(mut from), Some(to)) = (from, to) {
        tokio::io::copy_buf(&mut from, to).await?;
    }
    Ok(())
}
