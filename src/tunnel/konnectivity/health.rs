//! The plain HTTP ports of both roles: health, readiness, metrics, and the admin port beside them.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::TunnelError;
use crate::net;

/// What a port answers: status, body, and where else to look.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: String,
    pub location: Option<String>,
}

impl Answer {
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), location: None }
    }

    pub fn ok() -> Self {
        Self::text(StatusCode::OK, "ok")
    }

    pub fn moved(location: String) -> Self {
        Self { status: StatusCode::MOVED_PERMANENTLY, body: String::new(), location: Some(location) }
    }
}

/// Answers a path with its query.
pub type Respond = Arc<dyn Fn(&str, &str) -> Option<Answer> + Send + Sync>;

/// An address as flags give it: an empty host is every address.
pub fn address(host: &str, port: u16) -> Result<SocketAddr, TunnelError> {
    let all = IpAddr::from([0, 0, 0, 0]);
    let ip = if host.is_empty() { Ok(all) } else { host.trim_matches(['[', ']']).parse() };
    let ip = ip.map_err(|_| TunnelError::Flags(format!("{host:?} is not an IP address")))?;
    Ok(SocketAddr::new(ip, port))
}

/// Opens a port and serves it for as long as the role runs.
pub async fn open(at: SocketAddr, respond: Respond) -> Result<(), TunnelError> {
    let listener = net::bind(at).await?;
    tokio::spawn(serve(listener, respond));
    Ok(())
}

async fn serve(listener: TcpListener, respond: Respond) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        net::tune(&stream);
        let respond = Arc::clone(&respond);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answer = respond(request.uri().path(), request.uri().query().unwrap_or_default());
            let answer =
                answer.unwrap_or_else(|| Answer::text(StatusCode::NOT_FOUND, "404 page not found\n"));
            async move { Ok::<_, Infallible>(response(answer)) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        // A client that says nothing is not kept.
        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(location) = answer.location.and_then(|text| text.parse().ok()) {
        headers.insert(header::LOCATION, location);
    }
    response
}
