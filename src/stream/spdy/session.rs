//! A session: the two loops that move frames, and the handle that opens, accepts and closes.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::super::{Connection, IDLE, LINGER, StreamError};
use super::frame::{Control, FrameError, HEAD, Head};
use super::headers::Inflater;
use super::state::{Batch, Shared};
use super::stream::{Incoming, Stream};

/// What one read may bring.
const READ: usize = 128 * 1024;
/// How often a peer that is not read for want of room is asked whether it lives.
const STALL: Duration = Duration::from_secs(5);

/// One end of a SPDY connection. Dropping it cuts the connection; [`Session::close`] ends it in order.
pub struct Session {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    task: AbortOnDropHandle<()>,
}

/// Sends pings for somebody who does not hold the session.
pub struct Pinger(Arc<Shared>);

impl Pinger {
    pub fn send(&self) {
        self.0.ping();
    }
}

impl Session {
    /// The end that took the connection. Needs a tokio runtime around it.
    #[cfg(test)]
    pub fn server(io: impl Connection) -> Self {
        Self::server_idle(io, IDLE)
    }

    /// The same, closed once nothing has come for so long.
    pub fn server_idle(io: impl Connection, idle: Duration) -> Self {
        Self::start(io, false, idle)
    }

    /// The end that made it.
    pub fn client(io: impl Connection) -> Self {
        Self::start(io, true, IDLE)
    }

    fn start(io: impl Connection, client: bool, idle: Duration) -> Self {
        let shared = Shared::new(client);
        // As many wait here as there are streams, and their number is bounded.
        let (send, incoming) = mpsc::unbounded_channel();
        let task = AbortOnDropHandle::new(tokio::spawn(run(Arc::clone(&shared), io, send, idle)));
        Self { shared, incoming, task }
    }

    /// The next stream the other end opens; none once it is gone.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Opens a stream and waits until the other end has accepted it. Names in lower case.
    pub async fn open(&self, headers: &[(&str, &str)]) -> Result<Stream, StreamError> {
        let (id, reader, replied) = self.shared.open(headers).ok_or(StreamError::Closed)?;
        let stream = Stream::new(&self.shared, id, reader);
        match replied.await {
            Ok(()) => Ok(stream),
            Err(_) if self.shared.closed.is_cancelled() => Err(StreamError::Closed),
            Err(_) => Err(StreamError::Reset),
        }
    }

    /// Cancelled when the connection is gone.
    pub fn closed(&self) -> CancellationToken {
        self.shared.closed.clone()
    }

    pub fn pinger(&self) -> Pinger {
        Pinger(Arc::clone(&self.shared))
    }

    /// Sends what waits and GOAWAY, then waits until the other end closes, at most a quarter of an hour.
    pub async fn close(mut self) {
        self.shared.go_away();
        self.incoming.close();
        let _ = timeout(LINGER, &mut self.task).await;
    }
}

/// What is read, and how long it may bring nothing.
struct Patient<R> {
    io: R,
    idle: Duration,
}

/// Whoever ends the task, the streams hear of it.
struct FailOnDrop(Arc<Shared>);

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        self.0.fail();
    }
}

async fn run(
    shared: Arc<Shared>,
    io: impl Connection,
    incoming: mpsc::UnboundedSender<Incoming>,
    idle: Duration,
) {
    let _end = FailOnDrop(Arc::clone(&shared));
    let (reader, writer) = tokio::io::split(io);
    let mut reading = pin!(read_loop(&shared, Patient { io: reader, idle }, incoming));
    let result = tokio::select! {
        result = &mut reading => result,
        result = write_loop(&shared, writer) => match result {
            Ok(()) => reading.await,
            Err(error) => Err(error.into()),
        },
    };
    if let Err(error) = result {
        debug!(%error, "SPDY session ended");
    }
}

async fn write_loop(shared: &Shared, mut io: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    loop {
        let batch = {
            let mut next = pin!(poll_fn(|cx| shared.poll_batch(cx, &mut out)));
            match futures_util::poll!(&mut next) {
                Poll::Ready(batch) => batch,
                Poll::Pending => {
                    // Nothing waits: what was written should not either.
                    io.flush().await?;
                    next.await
                }
            }
        };
        if batch == Batch::Done {
            // Not shut down: Go's library throws away what it has queued once it reads the end.
            return io.flush().await;
        }
        io.write_all(&out).await?;
        out.clear();
    }
}

/// Reads frames until the other end closes.
async fn read_loop(
    shared: &Arc<Shared>,
    mut io: Patient<impl AsyncRead + Unpin>,
    incoming: mpsc::UnboundedSender<Incoming>,
) -> Result<(), StreamError> {
    let (mut buffer, mut inflater) = (BytesMut::new(), Inflater::new());
    loop {
        while buffer.len() < HEAD {
            if !fill(&mut io, &mut buffer).await? {
                return if buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated.into()) };
            }
        }
        let head = buffer.split_to(HEAD);
        match Head::parse(head[..].try_into().map_err(|_| FrameError::Truncated)?)? {
            Head::Data { id, fin, len } => {
                read_data(shared, &mut io, &mut buffer, id, len).await?;
                if fin {
                    shared.remote_finished(id);
                }
            }
            Head::Control { kind, flags, len } => {
                while buffer.len() < len {
                    if !fill(&mut io, &mut buffer).await? {
                        return Err(FrameError::Truncated.into());
                    }
                }
                let payload = buffer.split_to(len);
                poll_fn(|cx| shared.poll_next(cx)).await;
                handle(shared, Control::parse(kind, flags, &payload)?, &mut inflater, &incoming)?;
            }
        }
    }
}

/// Hands a data frame over as it comes, whatever length it claims.
async fn read_data(
    shared: &Shared,
    io: &mut Patient<impl AsyncRead + Unpin>,
    buffer: &mut BytesMut,
    id: u32,
    mut left: usize,
) -> Result<(), StreamError> {
    while left > 0 {
        if buffer.is_empty() && !fill(io, buffer).await? {
            return Err(FrameError::Truncated.into());
        }
        // A peer that left is not heard while nothing is read, but a ping that finds it gone ends this.
        while timeout(STALL, poll_fn(|cx| shared.poll_room(cx, id))).await.is_err() {
            shared.ping();
        }
        let piece = buffer.split_to(left.min(buffer.len())).freeze();
        left -= piece.len();
        shared.received(id, piece);
    }
    Ok(())
}

fn handle(
    shared: &Arc<Shared>,
    control: Control<'_>,
    inflater: &mut Inflater,
    incoming: &mpsc::UnboundedSender<Incoming>,
) -> Result<(), StreamError> {
    match control {
        Control::SynStream { id, fin, unidirectional, block } => {
            let headers = inflater.headers(block)?;
            if let Some(reader) = shared.accept(id, fin, unidirectional) {
                // Nobody accepts any more: dropping it refuses it.
                let _ = incoming.send(Incoming::new(shared, id, headers, reader));
            }
        }
        Control::SynReply { id, fin, block } => {
            inflater.headers(block)?;
            shared.replied(id);
            if fin {
                shared.remote_finished(id);
            }
        }
        Control::Headers { id, fin, block } => {
            inflater.headers(block)?;
            if fin {
                shared.remote_finished(id);
            }
        }
        Control::Reset { id } => shared.remote_reset(id),
        Control::Settings { initial_window: Some(window) } => shared.initial_window(window),
        Control::WindowUpdate { id, delta } => shared.window_update(id, delta),
        Control::Ping { id } => shared.pinged(id),
        // The other end closes the connection itself once its streams are done.
        Control::GoAway | Control::Settings { .. } | Control::Unknown => {}
    }
    Ok(())
}

/// Reads some more; false at the end of the connection.
async fn fill(io: &mut Patient<impl AsyncRead + Unpin>, buffer: &mut BytesMut) -> Result<bool, StreamError> {
    if buffer.capacity() - buffer.len() < READ / 8 {
        buffer.reserve(READ);
    }
    let read = timeout(io.idle, io.io.read_buf(buffer)).await;
    Ok(read.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?? > 0)
}
