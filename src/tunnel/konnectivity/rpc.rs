//! gRPC as Konnectivity uses it: one stream of packets each way, over a connection made elsewhere.
//!
//! tonic frames and names the errors; the HTTP/2 below it is hyper's, on sockets and TLS of `net`. Left out:
//! tonic's own transport, compression, and every kind of call but the bidirectional one.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse, Uri};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::packet::{Message, Packet};

/// Where agents and frontends call.
pub const CONNECT: &str = "/AgentService/Connect";
pub const PROXY: &str = "/ProxyService/Proxy";

/// Data packets that wait for the stream, together; more would let one busy tunnel delay the others' bytes.
const DATA_WAITING: usize = 4;
/// The most bytes of one data packet.
pub const CHUNK: usize = 32 << 10;
/// What is about the stream itself, and waits unread: some for each of many tunnels.
const URGENT_WAITING: usize = 16 << 10;
/// What may be on its way in a stream: what stands there delays every other tunnel of the agent, so it is
/// some milliseconds' worth.
const STREAM_WINDOW: u32 = 512 << 10;
/// An agent's connection carries one stream.
const AGENT_WINDOW: u32 = 1 << 20;
/// A frontend's may carry all of its tunnels, and one that stands still must not use up what the others need.
const FRONTEND_WINDOW: u32 = 64 << 20;
const FRAME: u32 = 64 << 10;
const SEND_BUFFER: usize = 128 << 10;

/// What goes into a stream: what keeps order waits for its turn, what is about the stream itself goes first.
#[derive(Debug, Clone)]
pub struct Outbox {
    urgent: mpsc::Sender<Message>,
    data: mpsc::Sender<Message>,
    end: CancellationToken,
}

/// The other end of an [`Outbox`]: a stream's body.
#[derive(Debug)]
pub struct Outgoing {
    urgent: mpsc::Receiver<Message>,
    data: mpsc::Receiver<Message>,
    end: Pin<Box<tokio_util::sync::WaitForCancellationFutureOwned>>,
}

/// A stream that has ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the stream has ended")]
pub struct Ended;

impl Outbox {
    /// A stream's sending half; it ends when `end` is cancelled or every copy is gone.
    pub fn new(end: &CancellationToken) -> (Self, Outgoing) {
        let (urgent, urgently) = mpsc::channel(URGENT_WAITING);
        let (data, waiting) = mpsc::channel(DATA_WAITING);
        let end = end.child_token();
        let ends = Box::pin(end.clone().cancelled_owned());
        (Self { urgent, data, end }, Outgoing { urgent: urgently, data: waiting, end: ends })
    }

    /// Sends ahead of data that waits. A peer that leaves thousands of these unread is let go.
    pub fn urgent(&self, message: Message) -> Result<(), Ended> {
        self.urgent.try_send(message).map_err(|_| {
            self.end.cancel();
            Ended
        })
    }

    /// Sends after all data sent before; waits for its turn.
    pub async fn send(&self, message: Message) -> Result<(), Ended> {
        self.data.send(message).await.map_err(|_| Ended)
    }

    /// Resolves when nobody takes from it any more.
    pub async fn closed(&self) {
        self.data.closed().await;
    }
}

impl Outgoing {
    /// A stream in which everything keeps its order.
    pub fn of(data: mpsc::Receiver<Message>) -> Self {
        let (_, urgent) = mpsc::channel(1);
        Self { urgent, data, end: Box::pin(CancellationToken::new().cancelled_owned()) }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if let Poll::Ready(Some(message)) = self.urgent.poll_recv(cx) {
            return Poll::Ready(Some(message));
        }
        if let Poll::Ready(message) = self.data.poll_recv(cx) {
            return Poll::Ready(message);
        }
        self.end.as_mut().poll(cx).map(|()| None)
    }
}

impl Stream for Outgoing {
    type Item = Packet;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Packet>> {
        self.poll_message(cx).map(|message| message.map(Packet::from))
    }
}

/// A server's answers are packets that cannot fail.
pub struct Answering(pub Outgoing);

impl Stream for Answering {
    type Item = Result<Packet, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|packet| packet.map(Ok))
    }
}

fn connection_window(path: &str) -> u32 {
    if path == CONNECT { AGENT_WINDOW } else { FRONTEND_WINDOW }
}

/// What a served stream is asked and answers.
pub type Asked = Request<Streaming<Packet>>;
pub type Answered = Result<Response<Answering>, Status>;

/// Serves calls of `path` on one HTTP/2 connection until it ends or `stop` is cancelled.
pub async fn serve<S, H, F>(
    io: S,
    path: &'static str,
    keepalive: Duration,
    stop: CancellationToken,
    handler: H,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answered> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: HttpRequest<Incoming>| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(answer(path, request, handler).await) }
    });
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(path))
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        // One client's connection may carry all of its tunnels.
        .max_concurrent_streams(10_000)
        .keep_alive_interval(Some(keepalive))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = http.serve_connection(TokioIo::new(io), service);
    tokio::select! {
        _ = connection => {}
        () = stop.cancelled() => {}
    }
}

async fn answer<H, F>(
    path: &str,
    request: HttpRequest<Incoming>,
    handler: H,
) -> HttpResponse<tonic::body::Body>
where
    H: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answered> + Send + 'static,
{
    if request.uri().path() != path {
        let unknown = format!("unknown service or method {}", request.uri().path());
        return Status::unimplemented(unknown).into_http();
    }
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Packet, Packet>::default());
    grpc.streaming(tower::service_fn(handler), request).await
}

/// A stream that was opened: what comes, and the headers it was answered with.
pub struct Opened {
    pub incoming: Streaming<Packet>,
    pub metadata: tonic::metadata::MetadataMap,
    pub connection: Connection,
}

/// An HTTP/2 connection; dropped, it is closed at once.
#[derive(Debug)]
pub struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens a stream on a connection of its own; resolves with the answer's headers.
pub async fn open<S>(
    io: S,
    authority: &str,
    path: &'static str,
    keepalive: Option<Duration>,
    request: Request<Outgoing>,
) -> Result<Opened, Status>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let origin: Uri = format!("http://{authority}")
        .parse()
        .map_err(|_| Status::internal(format!("{authority:?} is no name of a server")))?;
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(path))
        .max_frame_size(FRAME)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(keepalive)
        .keep_alive_while_idle(keepalive.is_some())
        .keep_alive_timeout(Duration::from_secs(20));
    let (sender, driver) = http
        .handshake::<_, tonic::body::Body>(TokioIo::new(io))
        .await
        .map_err(|error| Status::unavailable(crate::net::go_text(&error)))?;
    let connection = Connection(tokio::spawn(async move { drop(driver.await) }).abort_handle());
    let service = tower::service_fn(move |request| sender.clone().send_request(request));
    let mut grpc = tonic::client::Grpc::with_origin(service, origin);
    let codec = ProstCodec::<Packet, Packet>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let answer = grpc.streaming(request, path, codec).await?;
    let (metadata, incoming, _) = answer.into_parts();
    Ok(Opened { incoming, metadata, connection })
}
