//! One request on a connection of its own to whoever it is passed on to.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use crate::net::go_text;

/// Holds a connection to a backend: dropped, the connection is closed and its task gone.
pub struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a backend answered, with what keeps the answer coming.
pub struct Answer {
    pub response: Response<Incoming>,
    pub sender: SendRequest<Body>,
    pub connection: Connection,
}

/// Sends one request over a connection and waits for the head of the answer.
///
/// # Errors
/// In Go's words.
pub async fn ask<S>(stream: S, request: Request<Body>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Go writes names that way, and what crosses the wire is looked at.
    let handshake = Builder::new().title_case_headers(true).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| said(&error))?;
    let connection = Connection(tokio::spawn(connection.with_upgrades()).abort_handle());
    let response = sender.send_request(request).await.map_err(|error| said(&error))?;
    Ok(Answer { response, sender, connection })
}

/// hyper's complaint in Go's words: a peer that hangs up without an answer is `EOF`.
fn said(error: &hyper::Error) -> String {
    match error.is_incomplete_message() {
        true => "EOF".into(),
        false => go_text(error),
    }
}

/// A body together with the connection it comes by: when the reader goes, so does the backend's end.
pub struct Streamed {
    body: Incoming,
    _connection: Connection,
}

impl Streamed {
    pub fn new(body: Incoming, connection: Connection) -> Self {
        Self { body, _connection: connection }
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
