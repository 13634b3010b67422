//! exec by WebSocket, as kubectl does it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::Method;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::upgrade::{Connection, upgrade};
use crate::lab::Lab;

const STDOUT: u8 = 1;
const ERROR: u8 = 3;
const HALF_CLOSE: u8 = 255;
/// What kubectl copies at a time.
const PIECE: usize = 32 * 1024;

/// From the first byte sent to the status that says the command has read them all.
pub async fn stdin(lab: &Lab, size: usize) -> anyhow::Result<Duration> {
    let query = "stdin=true&command=sh&command=-c&command=cat%20%3E/dev/null";
    let mut socket = open(lab, query).await?;
    let mut piece = BytesMut::with_capacity(PIECE + 1);
    piece.put_u8(0);
    piece.put_bytes(b'x', PIECE);
    let piece = piece.freeze();
    let from = Instant::now();
    for _ in 0..size / PIECE {
        socket.feed(Message::Binary(piece.clone())).await?;
    }
    socket.send(Message::Binary(Bytes::from_static(&[HALF_CLOSE, 0]))).await?;
    until_done(&mut socket).await?;
    Ok(from.elapsed())
}

/// From the request's answer to the status after the last byte.
pub async fn stdout(lab: &Lab, size: usize) -> anyhow::Result<Duration> {
    let query = format!("stdout=true&command=head&command=-c&command={size}&command=/dev/zero");
    let mut socket = open(lab, &query).await?;
    let from = Instant::now();
    let got = until_done(&mut socket).await?;
    if got != size {
        bail!("{got} of {size} bytes came");
    }
    Ok(from.elapsed())
}

async fn open(lab: &Lab, query: &str) -> anyhow::Result<WebSocketStream<Connection>> {
    let path = format!("/api/v1/namespaces/default/pods/streams/exec?container=c&{query}");
    let headers = [
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
    ];
    let connection = upgrade(lab, Method::GET, &path, "websocket", &headers).await?;
    let config = WebSocketConfig::default().write_buffer_size(256 * 1024).read_buffer_size(256 * 1024);
    Ok(WebSocketStream::from_raw_socket(connection, Role::Client, Some(config)).await)
}

/// How much came on standard output before the status said success.
async fn until_done(socket: &mut WebSocketStream<Connection>) -> anyhow::Result<usize> {
    let mut size = 0;
    loop {
        let message = socket.next().await.context("the stream ended without a status")??;
        let Message::Binary(data) = message else { continue };
        match data.split_first() {
            Some((&STDOUT, data)) => size += data.len(),
            Some((&ERROR, status)) if !status.is_empty() => {
                let status: serde_json::Value = serde_json::from_slice(status)?;
                if status["status"] != "Success" {
                    bail!("{status}");
                }
                return Ok(size);
            }
            _ => {}
        }
    }
}
