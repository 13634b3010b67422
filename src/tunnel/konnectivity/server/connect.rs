//! The HTTP-CONNECT frontend (`pkg/server/tunnel.go`): `CONNECT host:port HTTP/1.1`, then bytes.
//!
//! The 200 is out before any byte of the destination is, which upstream does not ensure for a destination
//! that speaks first.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Shared;
use super::backend::DialFailure;
use super::grpc::NO_AGENT;
use super::tunnel::{Lease, Tunnel};
use crate::tunnel::konnectivity::packet::DialRequest;
use crate::tunnel::konnectivity::rpc::CHUNK;

/// How long a frontend may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves one connection.
pub async fn serve<S>(shared: Arc<Shared>, io: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _counted = shared.counts.http.held();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let upgrade = hyper::upgrade::on(&mut request);
            Ok::<_, Infallible>(answer(&shared, &request, upgrade).await)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).auto_date_header(false);
    let _ = http.serve_connection(TokioIo::new(io), service).with_upgrades().await;
}

async fn answer(
    shared: &Arc<Shared>,
    request: &Request<Incoming>,
    upgrade: OnUpgrade,
) -> Response<Full<Bytes>> {
    if request.method() != Method::CONNECT {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "this proxy only supports CONNECT passthrough\n");
    }
    let address = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let Some(backend) = shared.choose(&address) else {
        shared.counts.dial_failure("no_agent");
        let text = format!("currently no tunnels available: {NO_AGENT}");
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, &text);
    };
    let request = DialRequest { protocol: "tcp".into(), address, random: super::random() };
    match shared.dial(&backend, request).await {
        Ok(tunnel) => established(Lease(tunnel), upgrade),
        Err(DialFailure::Refused(error)) => refusal(status(&error), &error),
        Err(error @ DialFailure::Gone) => {
            shared.counts.dial_failure("backend_close");
            refusal(StatusCode::BAD_GATEWAY, &error.to_string())
        }
    }
}

/// By the text of the agent's error (`mapDialErrorToHTTPStatus`).
fn status(error: &str) -> StatusCode {
    let error = error.to_ascii_lowercase();
    match () {
        () if error.contains("timeout") || error.contains("deadline exceeded") => StatusCode::GATEWAY_TIMEOUT,
        () if error.contains("too many open files") => StatusCode::SERVICE_UNAVAILABLE,
        () => StatusCode::BAD_GATEWAY,
    }
}

fn refusal(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

fn established(lease: Lease, upgrade: OnUpgrade) -> Response<Full<Bytes>> {
    tokio::spawn(async move {
        // The answer is written; before that nothing is read of what the destination says.
        let Ok(stream) = upgrade.await else { return };
        let (read, write) = tokio::io::split(TokioIo::new(stream));
        let tunnel = &lease.0;
        let mut down = std::pin::pin!(down(tunnel, write));
        tokio::select! {
            () = &mut down => {}
            () = up(tunnel, read) => {
                // It has nothing more to say; upstream closes both ways then. What is on its way still comes.
                if tunnel.close().await.is_ok() {
                    let _ = tokio::time::timeout(Duration::from_secs(10), down).await;
                }
            }
            overflow = tunnel.stalled() => {
                tracing::warn!(connectionID = tunnel.id, error = %overflow, "Closing a tunnel");
            }
        }
    });
    let mut response = Response::new(Full::default());
    let phrase = ReasonPhrase::from_static(b"Connection Established");
    response.extensions_mut().insert(phrase);
    response
}

async fn up(tunnel: &Tunnel, mut read: impl AsyncRead + Unpin) {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match read.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if tunnel.send(buffer.split().freeze()).await.is_err() {
            // The agent ended it; what it sent before is still to be read.
            std::future::pending::<()>().await;
        }
    }
}

async fn down(tunnel: &Tunnel, mut write: impl AsyncWrite + Unpin) {
    while let Ok(data) = tunnel.receive().await {
        if write.write_all(&data).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_dials_status_goes_by_its_text() {
        assert_eq!(status("dial tcp 10.0.0.1:1: i/o timeout"), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(status("socket: too many open files"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status("connect: connection refused"), StatusCode::BAD_GATEWAY);
    }
}
