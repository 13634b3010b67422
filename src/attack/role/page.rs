//! One page over HTTP or HTTPS: what a victim's pod serves, so that no attack depends on what the machine has,
//! and what a man in the middle serves instead of it.

use std::convert::Infallible;
use std::net::SocketAddrV4;
use std::sync::Arc;

use clap::Args;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::kubelet::told_to_end;
use super::redirect::{redirect, standing};
use super::say;
use crate::net::{Identity, Protocols, ServingCert, io_text};
use crate::pki::{self, Facts};

#[derive(Debug, Args)]
pub struct Page {
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// HTTPS, with a certificate that nobody signed; a client's is asked for
    #[arg(long)]
    tls: bool,
    /// Stand on the wire in somebody's place: ADDRESS:PORT
    #[arg(long)]
    instead_of: Option<SocketAddrV4>,
    /// Send everybody elsewhere: a 302 to this address
    #[arg(long)]
    location: Option<String>,
    text: String,
}

/// What everybody is told.
#[derive(Clone)]
struct Answer {
    text: Bytes,
    location: Option<http::HeaderValue>,
}

impl Page {
    pub async fn run(self) -> anyhow::Result<()> {
        let listener = crate::net::bind(([0, 0, 0, 0], self.port).into()).await?;
        let port = listener.local_addr()?.port();
        let acceptor = self.tls.then(acceptor).transpose()?;
        let location = self.location.as_deref().map(http::HeaderValue::from_str).transpose()?;
        let answer = Answer { text: Bytes::from(self.text.clone()), location };
        let serving = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(welcome(stream, acceptor.clone(), answer.clone(), self.instead_of.is_some()));
            }
        };
        let Some(victim) = self.instead_of else {
            let () = serving.await;
            return Ok(());
        };
        let redirected = redirect(victim, SocketAddrV4::new(standing(), port))?;
        say(&json!({"event": "ready", "insteadOf": victim}));
        tokio::select! {
            () = serving => {}
            () = told_to_end() => {}
        }
        drop(redirected);
        Ok(())
    }
}

fn acceptor() -> anyhow::Result<TlsAcceptor> {
    let issued = pki::self_signed_serving("page")?;
    let identity = Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() };
    Ok(TlsAcceptor::from(ServingCert::new(&identity)?.server_config(Protocols::H1)?))
}

impl Answer {
    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.text));
        if let Some(location) = self.location {
            *response.status_mut() = http::StatusCode::FOUND;
            response.headers_mut().insert(http::header::LOCATION, location);
        }
        response
    }
}

/// One connection; `tells` whether what happens on it is said aloud.
async fn welcome(stream: tokio::net::TcpStream, acceptor: Option<TlsAcceptor>, answer: Answer, tells: bool) {
    let tell = move |event| {
        if tells {
            say(&event);
        }
    };
    let Some(acceptor) = acceptor else { return serve(stream, answer, Arc::new(tell)).await };
    match acceptor.accept(stream).await {
        Ok(tls) => {
            let shown = tls.get_ref().1.peer_certificates();
            let client = shown.and_then(|chain| Facts::from_der(chain.first()?).ok());
            tell(json!({"event": "handshake", "client": client.map(|facts| facts.cn)}));
            serve(tls, answer, Arc::new(tell)).await;
        }
        Err(error) => tell(json!({"event": "refused", "why": io_text(&error)})),
    }
}

type Tell = Arc<dyn Fn(serde_json::Value) + Send + Sync>;

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send, answer: Answer, tell: Tell) {
    let asked = Arc::clone(&tell);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        asked(json!({"event": "request", "method": request.method().as_str(), "path": request.uri().path()}));
        let answer = answer.clone().response();
        async move { Ok::<_, Infallible>(answer) }
    });
    // With TLS 1.3 a client that refuses us does so after our handshake is over.
    if let Err(error) =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
    {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        tell(json!({"event": "refused", "why": why}));
    }
}
