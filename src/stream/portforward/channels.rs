//! Port forwarding over plain WebSocket channels: for each port a channel for data and one for errors.
//!
//! Stands for upstream's `websocketStreamHandler`. One connection a port, made at once; the first message
//! on each channel is its port in two bytes, little-endian.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tracing::debug;

use super::super::websocket::{Codec, Mux};
use super::super::{Connection, StreamError};
use super::{Target, forward};

pub async fn serve<C, F, S, E>(
    io: impl Connection,
    base64: bool,
    ports: Vec<u16>,
    target: Target,
    connect: C,
    idle: Duration,
) -> Result<(), StreamError>
where
    C: Fn(u16) -> F + Clone + Send + 'static,
    F: Future<Output = Result<S, E>> + Send + 'static,
    S: Connection,
    E: Display + Send + 'static,
{
    let codec = if base64 { Codec::Base64 } else { Codec::Binary };
    let readable: Vec<bool> = ports.iter().flat_map(|_| [true, false]).collect();
    let mut mux = Mux::server(io, codec, false, &readable, idle).await;
    let mut connections = JoinSet::new();
    for (port, data) in ports.into_iter().zip((0u8..).step_by(2)) {
        let Some(from_client) = mux.reader(data) else { continue };
        let (mut to_client, mut errors) = (mux.writer(data), mux.writer(data + 1));
        let (connecting, target) = (connect(port), target.clone());
        connections.spawn(async move {
            let number = Bytes::copy_from_slice(&port.to_le_bytes());
            to_client.write_all(&number).await?;
            errors.write_all(&number).await?;
            let cause = match connecting.await {
                Ok(pod) => match forward::relay(from_client, &mut to_client, pod).await {
                    Ok(()) => return Ok(()),
                    Err(cause) => cause.to_string(),
                },
                Err(cause) => cause.to_string(),
            };
            let text = target.failure(port, &cause);
            debug!(text, "port-forward");
            errors.write_all(text.as_bytes()).await
        });
    }
    let closed = mux.closed();
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => mux.finish(None).await,
        () = closed.cancelled() => {}
    }
    Ok(())
}
