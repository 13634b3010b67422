//! An HTTPS server: accepts, shakes hands, tells the service who is at the other end, stops in time.
//!
//! What Go's `http.Server` does around a handler, with its log line for failed handshakes and its
//! answer to plain HTTP on a TLS port.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::info;

use super::NetError;
use super::go_text::io_text;
use super::gulps::Gulps;
use super::listen::tune;
use super::tls::{Protocols, ServingCert};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A plaintext TLS record: fatal alert, internal_error.
const ALERT_INTERNAL_ERROR: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x50];
/// Go's answer to plain HTTP on a TLS port.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// More lines than any client sends, and still little memory.
const MOST_HEADERS: usize = 4096;
const MOST_HEADER_BYTES: u32 = 1 << 20;

/// Who is at the other end of a connection; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What the client sent in the handshake, leaf first; nothing here is verified but that it holds the key.
    pub certificates: Arc<[CertificateDer<'static>]>,
    /// Which of the role's listeners took the connection.
    pub listener: &'static str,
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// What a handler keeps for as long as this connection lives.
    pub kept: Arc<Mutex<http::Extensions>>,
}

/// A server's TLS and HTTP settings.
#[derive(Clone)]
pub struct Server {
    cert: ServingCert,
    tls: Arc<ServerConfig>,
    http: auto::Builder<TokioExecutor>,
    listener: &'static str,
    /// How long requests in flight may take once `stop` is cancelled.
    grace: Duration,
}

impl Server {
    /// A server with this certificate. `listener` names it in [`Peer`].
    pub fn new(cert: ServingCert, protocols: Protocols, listener: &'static str) -> Result<Self, NetError> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // Go bounds the bytes of a head, not the number of its lines (`http.DefaultMaxHeaderBytes`).
        http.http1().timer(TokioTimer::new()).max_headers(MOST_HEADERS);
        http.http2()
            .timer(TokioTimer::new())
            // Upstream's default is 100 streams a connection; a kube-rs role's watches and writes fit.
            .max_concurrent_streams(250)
            .max_header_list_size(MOST_HEADER_BYTES)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let tls = cert.server_config(protocols)?;
        Ok(Self { cert, tls, http, listener, grace: Duration::from_millis(250) })
    }

    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Serves until `stop` is cancelled: then accepts no more, lets requests in flight end, and returns.
    ///
    /// The listener is only borrowed from its owner in spirit: dropping ours leaves an inherited socket
    /// open in the init, where clients queue for the successor.
    pub async fn serve<S>(self, listener: TcpListener, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let connection =
                        self.clone().connection(stream, address, service.clone(), graceful.watcher());
                    tokio::spawn(connection);
                }
                // Out of descriptors, or the peer went while queued: others may still be served.
                Err(error) => {
                    info!(error = %error, "http: Accept error; retrying");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        drop(listener);
        let _ = timeout(self.grace, graceful.shutdown()).await;
    }

    async fn connection<S>(self, stream: TcpStream, address: SocketAddr, service: S, watcher: Watcher)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        tune(&stream);
        let tls = match timeout(HANDSHAKE_TIMEOUT, self.handshake(stream)).await {
            Ok(Ok(Some(tls))) => tls,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                let error = io_text(&error);
                info!(error, "http: TLS handshake error from {address}");
                return;
            }
            Err(_) => return,
        };
        let session = tls.get_ref().1;
        let h2 = session.alpn_protocol() == Some(b"h2");
        let peer = Peer {
            certificates: session.peer_certificates().unwrap_or_default().iter().cloned().collect(),
            listener: self.listener,
            address,
            kept: Arc::default(),
        };
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            let answer = match lacks_host(&request) {
                true => Err(no_host()),
                false => Ok(service.clone().call(request)),
            };
            async move {
                match answer {
                    Ok(answer) => answer.await,
                    Err(refused) => Ok(refused),
                }
            }
        });
        let http = if h2 { self.http.http2_only() } else { self.http.http1_only() };
        let connection = http.serve_connection_with_upgrades(TokioIo::new(tls), service).into_owned();
        // A client that goes away mid-request is its own business.
        let _ = watcher.watch(connection).await;
    }

    /// Nothing to serve with, and plain HTTP, are answered here; both leave no TLS connection.
    async fn handshake(&self, mut stream: TcpStream) -> io::Result<Option<TlsStream<Gulps<TcpStream>>>> {
        let mut first = [0u8; 5];
        let seen = stream.peek(&mut first).await?;
        if looks_like_http(&first[..seen]) {
            stream.write_all(PLAIN_HTTP).await?;
            // What the client said must be read, or closing resets the connection before our answer arrives.
            let _ = stream.read(&mut [0u8; 4096]).await?;
            stream.shutdown().await?;
            return Ok(None);
        }
        if self.cert.is_pending() {
            let peer = stream.peer_addr()?;
            info!("http: TLS handshake error from {peer}: no serving certificate available for the kubelet");
            // What the client said must be read, or closing resets the connection before our alert arrives.
            let _ = stream.read(&mut [0u8; 4096]).await?;
            stream.write_all(&ALERT_INTERNAL_ERROR).await?;
            stream.shutdown().await?;
            return Ok(None);
        }
        TlsAcceptor::from(Arc::clone(&self.tls)).accept(Gulps::new(stream)).await.map(Some)
    }
}

/// HTTP/1.1 wants to know which host is meant.
fn lacks_host<B>(request: &Request<B>) -> bool {
    request.version() == http::Version::HTTP_11
        && !request.headers().contains_key(http::header::HOST)
        && request.uri().authority().is_none()
}

/// Go's answer, which ends the connection.
fn no_host() -> Response<Body> {
    let mut response = Response::new(Body::from("400 Bad Request: missing required Host header"));
    *response.status_mut() = http::StatusCode::BAD_REQUEST;
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

/// The first bytes Go takes for HTTP.
fn looks_like_http(first: &[u8]) -> bool {
    [&b"GET /"[..], b"HEAD ", b"POST ", b"PUT /", b"OPTIO"].contains(&first)
}
