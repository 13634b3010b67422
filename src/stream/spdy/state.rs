//! What a session's two loops and its streams share, behind one lock that is never held across a wait.
//!
//! ```text
//!  socket ─▶ read loop ─▶ inbox of a stream ─▶ Reader          (Reader reports what it took: credit)
//!  socket ◀─ write loop ◀─ control frames, then ready streams in turn ◀─ StreamWriter
//! ```
//!
//! Every buffer has a bound: a stream's inbox and outbox, all inboxes together, the control frames. A
//! full inbox of a peer without windows stops the read loop; a full outbox stops only its writer.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::super::inbox::{Inbox, Reader};
use super::frame::{self, Status};
use super::headers::Deflater;

/// How much a peer with windows may send on one stream before it is read.
pub const WINDOW: usize = 1 << 20;
/// And over all streams of the session.
const SESSION_WINDOW: usize = 32 << 20;
/// What both windows are before anything is said (draft 3.1, section 2.6.8).
const DEFAULT_WINDOW: i64 = 64 * 1024;
/// Where a peer without windows is stopped.
const INBOX: usize = 4 << 20;
/// How much a stream may have waiting to be sent; less once much is waiting.
const OUTBOX: usize = 256 * 1024;
const CROWDED_OUTBOX: usize = 16 * 1024;
const CROWDED: usize = 16 << 20;
/// A peer that asks for answers and does not read them is read no more.
const CONTROL: usize = 256 * 1024;
/// Streams at once; port-forwarding takes two a connection.
const MOST_STREAMS: usize = 4096;
/// One data frame, and one write.
const LONGEST_FRAME: usize = 64 * 1024;
const BATCH: usize = 256 * 1024;

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Fin {
    #[default]
    Open,
    /// To be sent after what waits.
    Queued,
    Sent,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Goaway {
    #[default]
    Open,
    /// To be sent after everything else.
    Queued,
    Sent,
}

#[derive(Default)]
struct Entry {
    inbox: Inbox,
    /// Bytes in the inbox.
    held: usize,
    /// Bytes taken since the last `WINDOW_UPDATE`.
    taken: usize,
    outbox: BytesMut,
    fin: Fin,
    remote_done: bool,
    /// In the queue of streams that may have something to send.
    queued: bool,
    /// What the peer's updates allow beyond its initial window, less what was sent.
    credit: i64,
    writer: Option<Waker>,
    reply: Option<oneshot::Sender<()>>,
}

pub struct State {
    next_id: u32,
    last_peer_id: u32,
    ping_id: u32,
    deflater: Deflater,
    control: BytesMut,
    streams: HashMap<u32, Entry>,
    ready: VecDeque<u32>,
    /// The initial window of the peer's streams, once it has shown that it has windows.
    peer_window: Option<i64>,
    credit: i64,
    held: usize,
    taken: usize,
    waiting_out: usize,
    goaway: Goaway,
    dead: bool,
    read_loop: Option<Waker>,
    write_loop: Option<Waker>,
}

/// A session as its loops and streams see it.
pub struct Shared {
    state: Mutex<State>,
    /// Cancelled when the connection is gone.
    pub closed: CancellationToken,
}

/// What the write loop should do with a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    Write,
    /// GOAWAY has been written: nothing follows.
    Done,
}

impl Shared {
    pub fn new(client: bool) -> Arc<Self> {
        let mut control = BytesMut::new();
        frame::put_initial_window(&mut control, WINDOW as u32);
        frame::put_window_update(&mut control, 0, (SESSION_WINDOW as i64 - DEFAULT_WINDOW) as u32);
        let state = State {
            next_id: if client { 1 } else { 2 },
            last_peer_id: 0,
            ping_id: if client { 1 } else { 2 },
            deflater: Deflater::new(),
            control,
            streams: HashMap::new(),
            ready: VecDeque::new(),
            peer_window: None,
            credit: 0,
            held: 0,
            taken: 0,
            waiting_out: 0,
            goaway: Goaway::Open,
            dead: false,
            read_loop: None,
            write_loop: None,
        };
        Arc::new(Self { state: Mutex::new(state), closed: CancellationToken::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change; a poisoned lock still guards a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader for a stream whose consumption is credited to it.
    fn inbox(self: &Arc<Self>, id: u32) -> (Inbox, Reader) {
        let shared = Arc::clone(self);
        Inbox::new(Some(Box::new(move |count| shared.state().took(id, count))))
    }

    // ---- the streams' side ----

    /// A new stream of ours: its id, its reader, and word of the peer's reply.
    pub fn open(self: &Arc<Self>, headers: &[(&str, &str)]) -> Option<(u32, Reader, oneshot::Receiver<()>)> {
        let mut state = self.state();
        if state.dead || state.goaway != Goaway::Open || state.streams.len() >= MOST_STREAMS {
            return None;
        }
        let id = state.next_id;
        state.next_id = id.checked_add(2).filter(|next| *next < 1 << 31)?;
        let (inbox, reader) = self.inbox(id);
        let (send, receive) = oneshot::channel();
        state.streams.insert(id, Entry { inbox, reply: Some(send), ..Entry::default() });
        let block = state.deflater.block(headers);
        frame::put_syn_stream(&mut state.control, id, &block);
        state.wake_writer();
        Some((id, reader, receive))
    }

    pub fn reply(&self, id: u32) {
        let mut state = self.state();
        if state.streams.contains_key(&id) {
            let block = state.deflater.block(&[]);
            frame::put_syn_reply(&mut state.control, id, &block);
            state.wake_writer();
        }
    }

    pub fn poll_write(&self, id: u32, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let limit = if state.waiting_out < CROWDED { OUTBOX } else { CROWDED_OUTBOX };
        let Some(entry) = state.streams.get_mut(&id).filter(|entry| entry.fin == Fin::Open) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let room = limit.saturating_sub(entry.outbox.len());
        if room == 0 {
            entry.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = data.len().min(room);
        entry.outbox.extend_from_slice(&data[..count]);
        state.waiting_out += count;
        state.make_ready(id);
        Poll::Ready(Ok(count))
    }

    /// Ends our direction once what waits is sent.
    pub fn finish(&self, id: u32) {
        let mut state = self.state();
        if let Some(entry) = state.streams.get_mut(&id).filter(|entry| entry.fin == Fin::Open) {
            entry.fin = Fin::Queued;
            state.make_ready(id);
        }
    }

    /// Ends both directions now; what waits is thrown away.
    pub fn reset(&self, id: u32, status: Status) {
        let mut state = self.state();
        if state.remove(id, Some(io::ErrorKind::ConnectionAborted)) {
            frame::put_reset(&mut state.control, id, status);
            state.wake_writer();
        }
    }

    pub fn ping(&self) {
        let mut state = self.state();
        let id = state.ping_id;
        state.ping_id = id.checked_add(2).unwrap_or(2 - id % 2);
        frame::put_ping(&mut state.control, id);
        state.wake_writer();
    }

    // ---- the read loop's side ----

    /// Ready when another frame may be read.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.control.len() < CONTROL || state.dead {
            return Poll::Ready(());
        }
        state.read_loop = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when data for this stream may be taken in.
    pub fn poll_room(&self, cx: &mut Context<'_>, id: u32) -> Poll<()> {
        let mut state = self.state();
        let full = state.streams.get(&id).is_some_and(|entry| entry.held >= INBOX);
        // After GOAWAY nobody reads; what still comes only has to go away.
        let free = state.goaway == Goaway::Sent || state.dead;
        if free || !(full || state.held >= SESSION_WINDOW + INBOX) {
            return Poll::Ready(());
        }
        state.read_loop = Some(cx.waker().clone());
        Poll::Pending
    }

    pub fn received(&self, id: u32, data: Bytes) {
        let count = data.len();
        let mut state = self.state();
        let over = state.goaway == Goaway::Sent;
        let lost = match state.streams.get_mut(&id).filter(|_| !over) {
            Some(entry) => {
                let lost = entry.inbox.push(data);
                entry.held += count - lost;
                lost
            }
            None => count,
        };
        state.held += count - lost;
        state.credit(id, lost);
    }

    /// A stream of the peer's; none if its number or the number of streams is out of order.
    pub fn accept(self: &Arc<Self>, id: u32, fin: bool, unidirectional: bool) -> Option<Reader> {
        let mut state = self.state();
        let ours = id % 2 == state.next_id % 2;
        if ours || id <= state.last_peer_id || state.goaway != Goaway::Open {
            frame::put_reset(&mut state.control, id, Status::Protocol);
            state.wake_writer();
            return None;
        }
        state.last_peer_id = id;
        if state.streams.len() >= MOST_STREAMS {
            frame::put_reset(&mut state.control, id, Status::Refused);
            state.wake_writer();
            return None;
        }
        let (inbox, reader) = self.inbox(id);
        let done = if unidirectional { Fin::Sent } else { Fin::Open };
        state.streams.insert(id, Entry { inbox, fin: done, ..Entry::default() });
        if fin {
            state.remote_finished(id);
        }
        Some(reader)
    }

    pub fn replied(&self, id: u32) {
        let mut state = self.state();
        let reply = state.streams.get_mut(&id).and_then(|entry| entry.reply.take());
        drop(state);
        if let Some(reply) = reply {
            // Whoever asked may have given up waiting.
            let _ = reply.send(());
        }
    }

    pub fn remote_finished(&self, id: u32) {
        self.state().remote_finished(id);
    }

    pub fn remote_reset(&self, id: u32) {
        self.state().remove(id, Some(io::ErrorKind::ConnectionReset));
    }

    /// The peer has windows, and this is where they start.
    pub fn initial_window(&self, window: u32) {
        let mut state = self.state();
        state.peer_window = Some(i64::from(window));
        state.all_ready();
    }

    pub fn window_update(&self, id: u32, delta: u32) {
        let mut state = self.state();
        state.peer_window.get_or_insert(DEFAULT_WINDOW);
        let delta = i64::from(delta);
        if id == 0 {
            state.credit = state.credit.saturating_add(delta);
            state.all_ready();
        } else if let Some(entry) = state.streams.get_mut(&id) {
            entry.credit = entry.credit.saturating_add(delta);
            state.make_ready(id);
        }
    }

    /// Pings of the peer are answered; those of ours have come back.
    pub fn pinged(&self, id: u32) {
        let mut state = self.state();
        if id % 2 != state.next_id % 2 {
            frame::put_ping(&mut state.control, id);
            state.wake_writer();
        }
    }

    // ---- the session's side ----

    pub fn go_away(&self) {
        let mut state = self.state();
        if state.goaway == Goaway::Open {
            state.goaway = Goaway::Queued;
            state.wake_writer();
        }
    }

    /// The connection is gone: everything waiting hears of it.
    pub fn fail(&self) {
        let mut state = self.state();
        state.dead = true;
        for (_, mut entry) in std::mem::take(&mut state.streams) {
            entry.close(Some(io::ErrorKind::UnexpectedEof));
        }
        state.waiting_out = 0;
        state.wake_reader();
        state.wake_writer();
        drop(state);
        self.closed.cancel();
    }

    /// Appends what can be sent to `out`, control frames first, then each ready stream's share.
    pub fn poll_batch(&self, cx: &mut Context<'_>, out: &mut BytesMut) -> Poll<Batch> {
        let mut state = self.state();
        if state.control.len() >= CONTROL {
            state.wake_reader();
        }
        out.extend_from_slice(&state.control);
        state.control.clear();
        // Each turn adds to `out` or takes a stream out of the queue.
        while out.len() < BATCH && !state.ready.is_empty() {
            state.take_turn(out);
        }
        if !out.is_empty() {
            return Poll::Ready(Batch::Write);
        }
        match state.goaway {
            Goaway::Sent => return Poll::Ready(Batch::Done),
            Goaway::Queued if state.all_sent() => {
                state.goaway = Goaway::Sent;
                frame::put_goaway(out, state.last_peer_id);
                state.wake_reader();
                return Poll::Ready(Batch::Write);
            }
            _ if state.dead => return Poll::Ready(Batch::Done),
            _ => {}
        }
        state.write_loop = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl State {
    fn wake_writer(&mut self) {
        if let Some(waker) = self.write_loop.take() {
            waker.wake();
        }
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.read_loop.take() {
            waker.wake();
        }
    }

    fn make_ready(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.queued && entry.has_work()) {
            entry.queued = true;
            self.ready.push_back(id);
            self.wake_writer();
        }
    }

    fn all_ready(&mut self) {
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        ids.into_iter().for_each(|id| self.make_ready(id));
    }

    fn all_sent(&self) -> bool {
        !self.streams.values().any(Entry::has_work)
    }

    /// How much the peer's windows let this stream send.
    fn allowed(&self, entry: &Entry) -> usize {
        match self.peer_window {
            None => LONGEST_FRAME,
            Some(window) => {
                let stream = window.saturating_add(entry.credit);
                let session = DEFAULT_WINDOW.saturating_add(self.credit);
                usize::try_from(stream.min(session)).unwrap_or(0).min(LONGEST_FRAME)
            }
        }
    }

    /// One frame of the stream whose turn it is, if its windows allow; it queues again for more.
    fn take_turn(&mut self, out: &mut BytesMut) {
        let Some(id) = self.ready.pop_front() else { return };
        let Some(entry) = self.streams.get(&id) else { return };
        let count = self.allowed(entry).min(entry.outbox.len());
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.queued = false;
        let fin = entry.fin == Fin::Queued && count == entry.outbox.len();
        if count == 0 && !fin {
            return;
        }
        frame::put_data(out, id, fin, &entry.outbox[..count]);
        entry.outbox.advance(count);
        entry.credit -= count as i64;
        if fin {
            entry.fin = Fin::Sent;
        }
        if let Some(writer) = entry.writer.take() {
            writer.wake();
        }
        let over = fin && entry.remote_done;
        self.credit -= count as i64;
        self.waiting_out -= count;
        if over {
            self.remove(id, None);
        } else {
            self.make_ready(id);
        }
    }

    fn remote_finished(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.remote_done = true;
            entry.inbox.finish();
            if entry.fin == Fin::Sent {
                self.remove(id, None);
            }
        }
    }

    /// Forgets a stream; whether there was one.
    fn remove(&mut self, id: u32, failed: Option<io::ErrorKind>) -> bool {
        let Some(mut entry) = self.streams.remove(&id) else { return false };
        self.waiting_out -= entry.outbox.len();
        entry.close(failed);
        self.wake_reader();
        // A close may wait for this stream alone.
        self.wake_writer();
        true
    }

    /// A reader took bytes, or gave them up.
    fn took(&mut self, id: u32, count: usize) {
        self.held = self.held.saturating_sub(count);
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.held = entry.held.saturating_sub(count);
        }
        self.wake_reader();
        self.credit(id, count);
    }

    /// Tells the peer that it may send as much again, in steps of half a window.
    fn credit(&mut self, id: u32, count: usize) {
        if count == 0 || self.dead {
            return;
        }
        self.taken += count;
        let mut updated = self.taken >= SESSION_WINDOW / 2;
        if updated {
            frame::put_window_update(&mut self.control, 0, self.taken as u32);
            self.taken = 0;
        }
        if let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.remote_done) {
            entry.taken += count;
            if entry.taken >= WINDOW / 2 {
                frame::put_window_update(&mut self.control, id, entry.taken as u32);
                entry.taken = 0;
                updated = true;
            }
        }
        if updated {
            self.wake_writer();
        }
    }
}

impl Entry {
    fn has_work(&self) -> bool {
        !self.outbox.is_empty() || self.fin == Fin::Queued
    }

    fn close(&mut self, failed: Option<io::ErrorKind>) {
        match failed {
            Some(kind) => self.inbox.fail(kind),
            None => self.inbox.finish(),
        }
        self.reply = None;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}
