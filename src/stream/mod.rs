//! Streams over an upgraded connection: SPDY/3.1, WebSocket channels, remote commands, port forwarding.
//!
//! What `k8s.io/streaming` and its users in the API server and the kubelet do after an HTTP upgrade, for
//! both ends: one codec, no roles. Nothing here opens a socket or knows a pod; a caller hands over a
//! connection that is already upgraded and gets byte streams, or refuses with upstream's words.
//!
//! Left out: SPDY's server push, priorities and header frames after the reply, which no Kubernetes
//! client sends; WebSocket compression, which none offers.

#[cfg(test)]
mod fuzz;
mod inbox;
pub mod portforward;
mod pump;
pub mod remotecommand;
pub mod spdy;
pub mod upgrade;
pub mod websocket;

pub use inbox::Reader;
pub use pump::pump;
pub use upgrade::{Refusal, is_upgrade, is_websocket};

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream towards the other end.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A connection whose HTTP part is over.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for C {}

/// How long a connection may carry nothing, where nobody says (`streamingConnectionIdleTimeout`'s default).
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);
/// How long a client may take to create the streams it asked for (`DefaultStreamCreationTimeout`).
/// Tests cannot wait that long.
const CREATION: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// How long the end waits for a client that still reads (`finishTimeout` in upstream's proxy/websocket.go):
/// closing earlier would reset the connection and lose output on its way.
const LINGER: Duration = Duration::from_secs(15 * 60);

/// What ends a stream before its time.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("timed out waiting for client to create streams")]
    Creation,
    #[error("the connection is closed")]
    Closed,
    #[error("the other end reset the stream")]
    Reset,
    #[error("SPDY: {0}")]
    Spdy(#[from] spdy::FrameError),
    #[error("stream I/O: {0}")]
    Io(#[from] std::io::Error),
}
