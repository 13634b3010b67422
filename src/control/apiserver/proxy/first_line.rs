//! Remembers how a backend's answer begins, so that one that is no HTTP can be shown as Go shows it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::api::go_quote::quoted;

/// As much of a line as anybody reads.
const LONGEST: usize = 256;

/// A stream whose first line is remembered.
pub struct FirstLine<S> {
    stream: S,
    seen: Seen,
    /// The line has ended, or is long enough.
    complete: bool,
}

/// The line, as far as it came.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<u8>>>);

impl Seen {
    /// Go's complaint about an answer that begins like this; nothing where only what follows is wrong.
    pub fn malformed(&self) -> Option<String> {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let broken = "net/http: HTTP/1.x transport connection broken: malformed HTTP response";
        (!line.starts_with(b"HTTP/")).then(|| format!("{broken} {}", quoted(line)))
    }
}

impl<S> FirstLine<S> {
    pub fn of(stream: S) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { stream, seen: seen.clone(), complete: false }, seen)
    }

    fn remember(&mut self, bytes: &[u8]) {
        let mut line = self.seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let wanted = &bytes[..end.unwrap_or(bytes.len()).min(LONGEST - line.len())];
        line.extend_from_slice(wanted);
        self.complete = end.is_some() || line.len() == LONGEST;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstLine<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if !self.complete && read.is_ready() {
            self.remember(&into.filled()[before..]);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstLine<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn an_answer_that_is_no_http_is_shown_by_its_first_line() {
        let (mut stream, seen) = FirstLine::of(&b"GARBAGE\r\nmore"[..]);
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 13);
        let want = "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"GARBAGE\"";
        assert_eq!(seen.malformed().as_deref(), Some(want));
    }
}
