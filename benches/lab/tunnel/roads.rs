//! The bench's own clients: one for each frontend, as thin as their protocols allow, and a plain connection.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::StreamExt;
use http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;
use tonic_prost::ProstCodec;

use super::pair::Pair;
use crate::packet::{DialRequest, Message, Packet};

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
pub type Stream = Box<dyn Duplex>;

/// A way to the destination at a port of loopback.
pub enum Road {
    Direct(u16),
    Grpc(PathBuf, u16),
    Connect(PathBuf, u16),
}

impl Road {
    pub fn through(pair: &Pair, mode: &str, port: u16) -> Self {
        match mode {
            "grpc" => Self::Grpc(pair.socket(), port),
            _ => Self::Connect(pair.socket(), port),
        }
    }

    /// Dials until it works.
    pub async fn first(&self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = self.dial().await {
            if Instant::now() >= until {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub async fn dial(&self) -> anyhow::Result<Stream> {
        match self {
            Self::Direct(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Connect(socket, port) => connect(socket, *port).await,
            Self::Grpc(socket, port) => grpc(socket, *port).await,
        }
    }
}

async fn connect(socket: &PathBuf, port: u16) -> anyhow::Result<Stream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
        .await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if !head.starts_with(b"HTTP/1.1 200 ") {
        bail!("{}", String::from_utf8_lossy(&head));
    }
    Ok(Box::new(stream))
}

async fn grpc(socket: &PathBuf, port: u16) -> anyhow::Result<Stream> {
    let io = TokioIo::new(UnixStream::connect(socket).await?);
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http.initial_stream_window_size(4 << 20).initial_connection_window_size(8 << 20).max_frame_size(64 << 10);
    let (sender, driver) = http.handshake::<_, tonic::body::Body>(io).await?;
    let driver = tokio::spawn(driver).abort_handle();
    let service = tower::service_fn(move |request| sender.clone().send_request(request));
    let mut client = tonic::client::Grpc::with_origin(service, Uri::from_static("http://localhost"));
    let (say, said) = mpsc::channel::<Message>(2);
    let body = futures_util::stream::unfold(said, |mut said| async {
        said.recv().await.map(|message| (Packet::from(message), said))
    });
    let request = DialRequest { protocol: "tcp".into(), address: format!("127.0.0.1:{port}"), random: 1 };
    say.send(Message::DialRequest(request)).await?;
    let path = http::uri::PathAndQuery::from_static("/ProxyService/Proxy");
    let codec = ProstCodec::<Packet, Packet>::default();
    let answer = client.streaming(tonic::Request::new(body), path, codec).await?;
    let mut incoming = answer.into_inner();
    let id = match incoming.message().await?.map(Message::from).context("an answer")? {
        Message::DialResponse(answer) if answer.error.is_empty() => answer.connect_id,
        other => bail!("{other:?}"),
    };
    let end = Ends(driver);
    let incoming = incoming.map(move |packet| {
        let _with = &end;
        match packet.map(Message::from) {
            Ok(Message::Data(data)) => Ok(data.data),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(status) => Err(io::Error::other(status)),
        }
    });
    let reader = StreamReader::new(incoming);
    let sink = PollSender::new(say);
    let sink = futures_util::SinkExt::sink_map_err(sink, |_| io::Error::from(io::ErrorKind::BrokenPipe));
    let sink = futures_util::SinkExt::with(sink, move |bytes: Bytes| {
        futures_util::future::ready(Ok::<_, io::Error>(Message::data(id, bytes)))
    });
    Ok(Box::new(tokio::io::join(reader, SinkWriter::new(CopyToBytes::new(sink)))))
}

/// Hangs up with the tunnel.
struct Ends(tokio::task::AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}
