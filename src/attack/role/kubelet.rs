//! A fake kubelet on the wire: any certificate, any log.
//!
//! It takes the place of a real one for whoever dials it through this host. To a client that verifies it gets
//! as far as a handshake that is refused; to one that does not, it is the kubelet: `containerLogs` answers
//! what it was told to say. What it cannot do is pass the API server's client certificate on.

use std::convert::Infallible;
use std::net::SocketAddrV4;
use std::sync::Arc;

use clap::Args;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::redirect::{redirect, standing};
use super::say;
use crate::net::{Identity, Protocols, ServingCert, io_text};
use crate::pki::{self, Facts};

#[derive(Debug, Args)]
pub struct FakeKubelet {
    /// Whose place it takes: ADDRESS:PORT
    victim: SocketAddrV4,
    /// What every log says
    #[arg(long)]
    log: String,
}

impl FakeKubelet {
    pub async fn run(self) -> anyhow::Result<()> {
        let listener = crate::net::bind("0.0.0.0:0".parse()?).await?;
        let here = SocketAddrV4::new(standing(), listener.local_addr()?.port());
        // As a kubelet's own would look, and signed by nobody anybody knows.
        let issued = pki::self_signed_serving("node")?;
        let identity = Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() };
        let acceptor = TlsAcceptor::from(ServingCert::new(&identity)?.server_config(Protocols::H1)?);
        let redirected = redirect(self.victim, here)?;
        say(&json!({"event": "ready", "at": here}));
        let log: Arc<str> = format!("{}\n", self.log).into();
        tokio::select! {
            outcome = accept(listener, acceptor, log) => outcome?,
            () = told_to_end() => {}
        }
        drop(redirected);
        Ok(())
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, log: Arc<str>) -> anyhow::Result<()> {
    loop {
        let (stream, peer) = listener.accept().await?;
        say(&json!({"event": "dialled", "from": peer}));
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&log)));
    }
}

/// Is a kubelet on one connection.
pub async fn serve<S>(stream: S, acceptor: TlsAcceptor, log: Arc<str>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tls = match acceptor.accept(stream).await {
        Ok(tls) => tls,
        Err(error) => return say(&json!({"event": "refused", "why": io_text(&error)})),
    };
    let client = tls.get_ref().1.peer_certificates().and_then(|chain| Facts::from_der(chain.first()?).ok());
    say(&json!({"event": "handshake", "client": client.map(|facts| facts.cn)}));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let log = Arc::clone(&log);
        async move {
            say(
                &json!({"event": "request", "method": request.method().as_str(), "path": request.uri().to_string()}),
            );
            Ok::<_, Infallible>(answer(request.uri().path(), &log))
        }
    });
    // With TLS 1.3 a client that refuses us does so after our handshake is over.
    if let Err(error) =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await
    {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        say(&json!({"event": "refused", "why": why}));
    }
}

fn answer(path: &str, log: &str) -> Response<Full<Bytes>> {
    let (status, body) = match path.split('/').nth(1) {
        Some("containerLogs") => (200, log.to_owned()),
        Some("healthz") => (200, "ok".to_owned()),
        _ => (404, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// Resolves when whoever started the attack has gone or wants it to end.
pub async fn told_to_end() {
    let Ok(input) = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned() else { return };
    let Ok(mut input) = tokio::net::unix::pipe::Receiver::from_owned_fd(input) else { return };
    let mut buffer = [0; 64];
    while input.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}
