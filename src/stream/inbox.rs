//! Bytes that came for one stream and wait for their reader.
//!
//! The place where a multiplexed connection and one stream's consumer meet. It never blocks the side
//! that fills it: that side asks for room first, and stops reading its connection when there is none.
//! A reader that is gone is a reader of everything, so that nobody waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

/// Below this a piece is copied: a short one would hold the whole buffer it was cut from.
const WORTH_KEEPING: usize = 4096;

#[derive(Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// What came while `chunks` waited, in one place.
    tail: BytesMut,
    len: usize,
    end: Option<End>,
    reader_gone: bool,
    reader: Option<Waker>,
    source: Option<Waker>,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Eof,
    Failed(io::ErrorKind),
}

/// The side that fills it.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<State>>);

impl Inbox {
    /// An inbox and its one reader, which calls `consumed` with every number of bytes it took.
    pub fn new(consumed: Option<Consumed>) -> (Self, Reader) {
        let inbox = Self::default();
        let reader = Reader { inbox: inbox.clone(), front: Bytes::new(), consumed };
        (inbox, reader)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way; a poisoned lock still guards a whole state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes; how many of them nobody will ever read.
    pub fn push(&self, bytes: Bytes) -> usize {
        let mut state = self.state();
        if state.reader_gone || state.end.is_some() {
            return bytes.len();
        }
        state.len += bytes.len();
        if state.len == bytes.len() && bytes.len() >= WORTH_KEEPING {
            state.chunks.push_back(bytes);
        } else {
            state.tail.extend_from_slice(&bytes);
        }
        let waker = state.reader.take();
        drop(state);
        wake(waker);
        0
    }

    /// Ready while fewer than `limit` bytes wait. One asker at a time.
    pub fn poll_room(&self, cx: &mut Context<'_>, limit: usize) -> Poll<()> {
        let mut state = self.state();
        if state.reader_gone || state.len < limit {
            return Poll::Ready(());
        }
        state.source = Some(cx.waker().clone());
        Poll::Pending
    }

    /// No more will come.
    pub fn finish(&self) {
        self.end(End::Eof);
    }

    /// No more will come, and what came is not all.
    pub fn fail(&self, kind: io::ErrorKind) {
        self.end(End::Failed(kind));
    }

    fn end(&self, end: End) {
        let mut state = self.state();
        state.end.get_or_insert(end);
        let waker = state.reader.take();
        drop(state);
        wake(waker);
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("len", &self.state().len).finish()
    }
}

/// Called with how many bytes were taken, or given up when the reader is dropped.
pub type Consumed = Box<dyn Fn(usize) + Send + Sync>;

/// The side that reads: one direction of a stream. Dropping it discards what still comes.
pub struct Reader {
    inbox: Inbox,
    /// Taken out of the inbox and not yet consumed; still counted there.
    front: Bytes,
    consumed: Option<Consumed>,
}

impl Reader {
    /// Fills `front` if it is empty. Ready with an empty one at the end.
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.front.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.inbox.state();
        let next = match state.chunks.pop_front() {
            Some(chunk) => chunk,
            None => state.tail.split().freeze(),
        };
        if next.is_empty() {
            return match state.end {
                Some(End::Eof) => Poll::Ready(Ok(())),
                Some(End::Failed(kind)) => Poll::Ready(Err(kind.into())),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        drop(state);
        self.front = next;
        Poll::Ready(Ok(()))
    }

    fn took(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut state = self.inbox.state();
        state.len -= count;
        let waker = state.source.take();
        drop(state);
        wake(waker);
        if let Some(consumed) = &self.consumed {
            consumed(count);
        }
    }
}

impl AsyncBufRead for Reader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        this.poll_front(cx).map_ok(|()| &*this.front)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.front.advance(amount);
        this.took(amount);
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Short pieces are gathered: a caller that lends 64 KiB should not be called for each frame.
        let mut taken = 0;
        while buffer.remaining() > 0 {
            match this.poll_front(cx) {
                Poll::Ready(Ok(())) if !this.front.is_empty() => {
                    let count = this.front.len().min(buffer.remaining());
                    buffer.put_slice(&this.front.split_to(count));
                    taken += count;
                }
                Poll::Ready(Err(error)) if taken == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if taken == 0 => return Poll::Pending,
                _ => break,
            }
        }
        this.took(taken);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.inbox.state();
        state.reader_gone = true;
        let left = std::mem::take(&mut state.len);
        state.chunks.clear();
        state.tail = BytesMut::new();
        let waker = state.source.take();
        drop(state);
        wake(waker);
        if let (Some(consumed), 1..) = (&self.consumed, left) {
            consumed(left);
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inbox.fmt(f)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::poll_fn;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt};

    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_order_whatever_their_pieces() {
        let (inbox, mut reader) = Inbox::new(None);
        let all: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        let mut rest = &all[..];
        for size in [1, 5000, 3, 4096, 90_000, 900] {
            let (piece, after) = rest.split_at(size);
            assert_eq!(inbox.push(Bytes::copy_from_slice(piece)), 0);
            rest = after;
        }
        inbox.finish();
        let mut first = [0; 10];
        reader.read_exact(&mut first).await.unwrap();
        let mut got = first.to_vec();
        let buffered = reader.fill_buf().await.unwrap().to_vec();
        reader.consume(buffered.len());
        got.extend(buffered);
        reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, all);
    }

    #[tokio::test]
    async fn room_returns_when_bytes_are_taken_and_when_the_reader_leaves() {
        let (inbox, mut reader) = Inbox::new(None);
        inbox.push(Bytes::from(vec![0; 10]));
        assert!(poll_fn(|cx| inbox.poll_room(cx, 11)).now_or_never().is_some());
        assert!(poll_fn(|cx| inbox.poll_room(cx, 10)).now_or_never().is_none());
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { poll_fn(|cx| inbox.poll_room(cx, 10)).await }
        });
        reader.read_u8().await.unwrap();
        waiting.await.unwrap();
        inbox.push(Bytes::from(vec![0; 10]));
        drop(reader);
        poll_fn(|cx| inbox.poll_room(cx, 1)).await;
        assert_eq!(inbox.push(Bytes::from_static(b"late")), 4, "nobody will read it");
    }

    #[tokio::test]
    async fn every_byte_is_reported_once_read_or_given_up() {
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let consumed: Consumed = Box::new(move |bytes| {
            seen.fetch_add(bytes, Ordering::Relaxed);
        });
        let (inbox, mut reader) = Inbox::new(Some(consumed));
        inbox.push(Bytes::from(vec![0; 9000]));
        inbox.push(Bytes::from(vec![0; 100]));
        reader.read_exact(&mut [0; 5000]).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 5000);
        drop(reader);
        assert_eq!(count.load(Ordering::Relaxed), 9100);
    }

    #[tokio::test]
    async fn a_failure_is_told_after_what_came_before_it() {
        let (inbox, mut reader) = Inbox::new(None);
        inbox.push(Bytes::from_static(b"ab"));
        inbox.fail(io::ErrorKind::ConnectionReset);
        inbox.finish();
        let mut got = Vec::new();
        let error = reader.read_to_end(&mut got).await.unwrap_err();
        assert_eq!((got.as_slice(), error.kind()), (&b"ab"[..], io::ErrorKind::ConnectionReset));
    }
}
