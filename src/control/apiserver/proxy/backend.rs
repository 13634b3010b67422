//! One request on a connection of its own to whoever it is passed on to.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::first_line::FirstLine;
use crate::net::go_text;

/// Holds a connection to a backend: dropped, the connection is closed and its task gone.
pub struct Connection {
    task: AbortHandle,
    cut: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Says that a connection's task was dropped before the connection had ended, as all are when this server
/// stops: what came of a body until then is not all of it.
struct Unfinished(Option<Arc<AtomicBool>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(cut) = &self.0 {
            cut.store(true, Ordering::Release);
        }
    }
}

impl Connection {
    fn spawn<F: Future + Send + 'static>(connection: F) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&cut);
        let task = tokio::spawn(async move {
            let mut connection = Box::pin(connection);
            // Dropped before the connection is, whose body then seems to have ended.
            let mut unfinished = Unfinished(Some(seen));
            let _ = connection.as_mut().await;
            unfinished.0 = None;
        });
        Self { task: task.abort_handle(), cut }
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
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
    let (stream, first) = FirstLine::of(stream);
    let handshake = Builder::new().title_case_headers(true).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| said(&error))?;
    let connection = Connection::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(|error| {
        let shown = if error.is_parse() { first.malformed() } else { None };
        shown.unwrap_or_else(|| said(&error))
    })?;
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
    connection: Connection,
}

impl Streamed {
    pub fn new(body: Incoming, connection: Connection) -> Self {
        Self { body, connection }
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(frame) => Poll::Ready(Some(frame.map_err(io::Error::other))),
            None if self.connection.is_cut() => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
