//! SPDY/3.1: many streams over one connection, as Kubernetes uses it.
//!
//! Stands for `moby/spdystream`, which every Go client and kubelet has at its end. That library keeps no
//! flow-control windows: it neither sends nor obeys `WINDOW_UPDATE`. We do both, and hold the other end
//! to its window only once it has shown that it has one (a `SETTINGS` or a `WINDOW_UPDATE` from it). A
//! peer without windows may fill a stream's inbox; then its connection is not read until there is room,
//! which is what upstream does.
//!
//! Left out: priorities, server push, `HEADERS` after the reply (read and ignored), credentials.

pub(super) mod frame;
pub(super) mod headers;
mod session;
mod state;
mod stream;

pub use frame::FrameError;
pub use session::Session;
pub use stream::{Incoming, Stream, StreamWriter};

#[cfg(test)]
mod tests;
