//! One stream of a session: a reader, a writer, and what the other end said when it opened it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::super::inbox::Reader;
use super::frame::Status;
use super::headers::Headers;
use super::state::Shared;

/// A stream the other end opened and waits to have accepted. Dropped, it is refused.
pub struct Incoming {
    stream: Option<Stream>,
    headers: Headers,
}

impl Incoming {
    pub(super) fn new(shared: &Arc<Shared>, id: u32, headers: Headers, reader: Reader) -> Self {
        Self { stream: Some(Stream::new(shared, id, reader)), headers }
    }

    /// A header's value; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn id(&self) -> u32 {
        self.stream.as_ref().map_or(0, |stream| stream.writer.id)
    }

    /// Answers SYN_REPLY: the other end may send, and will hear.
    pub fn accept(mut self) -> Stream {
        let stream = self.stream.take().expect("only this method and drop take it, and both own self");
        stream.writer.shared.reply(stream.writer.id);
        stream
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            stream.reset();
        }
    }
}

/// Both directions of a stream. Dropping it ends our direction in order and discards the other.
#[derive(Debug)]
pub struct Stream {
    reader: Reader,
    writer: StreamWriter,
}

/// The direction towards the other end. Dropping it is a half-close after what was written.
pub struct StreamWriter {
    shared: Arc<Shared>,
    id: u32,
}

impl Stream {
    pub(super) fn new(shared: &Arc<Shared>, id: u32, reader: Reader) -> Self {
        Self { reader, writer: StreamWriter { shared: Arc::clone(shared), id } }
    }

    pub fn into_split(self) -> (Reader, StreamWriter) {
        (self.reader, self.writer)
    }

    /// Ends both directions at once; what was written and not sent is lost.
    pub fn reset(&self) {
        self.writer.reset();
    }
}

impl StreamWriter {
    /// Ends both directions of the stream at once; what was written and not sent is lost.
    pub fn reset(&self) {
        self.shared.reset(self.id, Status::Cancel);
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.poll_write(self.id, cx, data)
    }

    /// The session writes whatever it has as soon as it can; there is nothing to ask for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.finish(self.id);
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.shared.finish(self.id);
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter").field("id", &self.id).finish()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().reader).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.reader).consume(amount);
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
