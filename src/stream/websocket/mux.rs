//! Channels over one WebSocket: a task that moves messages, readers and writers beside it.
//!
//! WebSocket has no flow control of its own: a channel that nobody reads stops the reading of all, as
//! upstream's pipes do, once a megabyte waits. What we send is not held up by that.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::{CancellationToken, PollSender};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::super::inbox::{Inbox, Reader};
use super::super::{Connection, LINGER, Writer};
use super::codec::{Codec, Event};

/// How much of one channel may wait for its reader.
const INBOX: usize = 1 << 20;
/// How many messages may wait to be sent, and how long one is: with its head it fills whole TLS records.
const OUTBOX: usize = 8;
pub const LONGEST_SENT: usize = 64 * 1024 - HEAD;
/// Of a message of 126 to 65,535 bytes, and the channel's number.
const HEAD: usize = 4 + 1;
/// kubectl reads the connection from one goroutine while another creates the streams, and throws away what comes
/// for a stream that does not exist yet. A command takes about as long to start.
const SETTLE: Duration = Duration::from_millis(5);
/// A client that pings gives up when nothing answers for 61 s (client-go's heartbeat). While its input
/// waits for a reader its pings are not read, so it is told without being asked.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// The serving end of a WebSocket with channels. Dropping it cuts the connection.
pub struct Mux {
    codec: Codec,
    send: mpsc::Sender<Message>,
    readers: Vec<Option<Reader>>,
    closed: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Mux {
    /// `readable` says for each channel whether the client's bytes are wanted; others are discarded.
    pub async fn server(
        io: impl Connection,
        codec: Codec,
        half_close: bool,
        readable: &[bool],
        idle: Duration,
    ) -> Self {
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(super::config())).await;
        let (mut inboxes, mut readers) = (Vec::new(), Vec::new());
        for wanted in readable {
            let (inbox, reader) = Inbox::new(None);
            inboxes.push(inbox);
            readers.push(wanted.then_some(reader));
        }
        let (send, outgoing) = mpsc::channel(OUTBOX);
        let closed = CancellationToken::new();
        let driver = Driver {
            codec,
            half_close,
            idle,
            inboxes,
            wrote: AtomicBool::new(false),
            send: send.downgrade(),
            closed: closed.clone(),
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run(driver, socket, outgoing)));
        Self { codec, send, readers, closed, task }
    }

    /// The client's bytes on a channel; none if it is not readable or was taken.
    pub fn reader(&mut self, channel: u8) -> Option<Reader> {
        self.readers.get_mut(usize::from(channel))?.take()
    }

    pub fn writer(&self, channel: u8) -> Writer {
        Box::new(ChannelWriter { channel, codec: self.codec, send: PollSender::new(self.send.clone()) })
    }

    /// Sends one message before anything else was; a full queue or a client that is gone drops it.
    pub fn send(&self, channel: u8, data: Bytes) {
        let _ = self.send.try_send(self.codec.encode(channel, &data));
    }

    /// Cancelled when the connection is gone.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Sends what waits, then `last`, then closes with 1000 and waits for the client to close, at most a
    /// quarter of an hour: it may still be reading.
    pub async fn finish(self, last: Option<(u8, Bytes)>) {
        let Self { codec, send, readers, closed: _, mut task } = self;
        drop(readers);
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let closing = async {
            if let Some((channel, data)) = last {
                let _ = send.send(codec.encode(channel, &data)).await;
            }
            let _ = send.send(Message::Close(Some(frame))).await;
            let _ = (&mut task).await;
        };
        let _ = timeout(LINGER, closing).await;
    }
}

struct ChannelWriter {
    channel: u8,
    codec: Codec,
    send: PollSender<Message>,
}

impl AsyncWrite for ChannelWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.send.poll_reserve(cx)).map_err(gone)?;
        let data = &data[..data.len().min(LONGEST_SENT)];
        let message = self.codec.encode(self.channel, data);
        self.send.send_item(message).map_err(gone)?;
        Poll::Ready(Ok(data.len()))
    }

    /// The task flushes whenever nothing waits.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// No message says that a server's channel is done; the outcome does.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Driver {
    codec: Codec,
    half_close: bool,
    /// How long nothing may be said by either side.
    idle: Duration,
    inboxes: Vec<Inbox>,
    /// Whether anything was sent since this was last asked.
    wrote: AtomicBool,
    send: mpsc::WeakSender<Message>,
    closed: CancellationToken,
}

/// Whoever ends the task, readers hear of it.
impl Drop for Driver {
    fn drop(&mut self) {
        self.inboxes.iter().for_each(|inbox| inbox.fail(io::ErrorKind::UnexpectedEof));
        self.closed.cancel();
    }
}

async fn run<C: Connection>(driver: Driver, socket: WebSocketStream<C>, outgoing: mpsc::Receiver<Message>) {
    let driver = Arc::new(driver);
    let (sink, stream) = socket.split();
    let mut reading = pin!(driver.read_loop(stream));
    let result = tokio::select! {
        result = &mut reading => result,
        result = driver.write_loop(sink, outgoing) => match result {
            Ok(()) => reading.await,
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(()) | Err(Error::ConnectionClosed) => driver.inboxes.iter().for_each(Inbox::finish),
        Err(error) => debug!(%error, "WebSocket ended"),
    }
}

impl Driver {
    /// Ends after the close message.
    async fn write_loop(
        &self,
        mut sink: impl Sink<Message, Error = Error> + Unpin,
        mut outgoing: mpsc::Receiver<Message>,
    ) -> Result<(), Error> {
        if self.half_close {
            sleep(SETTLE).await;
        }
        while let Some(message) = outgoing.recv().await {
            let last = message.is_close();
            // One by one, as Go does: each is a TLS record then. The official Python client never sees a
            // message that came in the record of the one before.
            sink.send(message).await?;
            self.wrote.store(true, Ordering::Relaxed);
            if last {
                break;
            }
        }
        Ok(())
    }

    /// Ends when the client has closed.
    async fn read_loop(
        &self,
        mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    ) -> Result<(), Error> {
        loop {
            let message = match timeout(self.idle, stream.next()).await {
                Ok(Some(message)) => message?,
                Ok(None) => return Ok(()),
                Err(_) if self.wrote.swap(false, Ordering::Relaxed) => continue,
                Err(_) => return Err(Error::Io(io::ErrorKind::TimedOut.into())),
            };
            let payload = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => text.into(),
                // Pings and closes are answered by the library as it reads on.
                _ => continue,
            };
            match self.codec.decode(payload, self.half_close) {
                Event::Data(channel, data) => self.deliver(channel, data).await,
                Event::Close(channel) => match self.inboxes.get(usize::from(channel)) {
                    Some(inbox) => inbox.finish(),
                    None => return Ok(()),
                },
                Event::Nothing => {}
                Event::Broken => return Ok(()),
            }
        }
    }

    /// Data for a channel that does not exist is ignored, as upstream does.
    async fn deliver(&self, channel: u8, data: Bytes) {
        let Some(inbox) = self.inboxes.get(usize::from(channel)) else { return };
        inbox.push(data);
        while timeout(SIGN_OF_LIFE, poll_fn(|cx| inbox.poll_room(cx, INBOX))).await.is_err() {
            if let Some(send) = self.send.upgrade() {
                let _ = send.try_send(Message::Pong(Bytes::new()));
            }
        }
    }
}
