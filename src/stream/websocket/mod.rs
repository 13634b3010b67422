//! WebSocket on a connection that is already upgraded: Kubernetes' channels, and the SPDY tunnel.
//!
//! Stands for `k8s.io/streaming/pkg/httpstream/wsstream` and `client-go`'s `TunnelingConnection`. The
//! frames are tungstenite's.

mod codec;
mod messages;
mod mux;
mod tunnel;

pub use codec::Codec;
pub use messages::{Framing, tell};
pub(super) use mux::LONGEST_SENT;
pub use mux::Mux;
pub use tunnel::Tunnel;

use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The longest message taken, `x/net/websocket`'s `DefaultMaxPayloadBytes`; a longer one ends the connection.
const LONGEST: usize = 32 << 20;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(64 << 10)
        .write_buffer_size(64 << 10)
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST))
}
