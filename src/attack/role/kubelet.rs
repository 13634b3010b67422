//! A fake kubelet on the wire: any certificate, any log.
//!
//! It takes the place of a real one for whoever dials it through this host. To a client that verifies it gets
//! as far as a handshake that is refused; to one that does not, it is the kubelet: every log and page is what
//! it was told to say, and what is typed it notes ([`super::streams`]). What it cannot do is pass the API
//! server's client certificate on. With a certificate in ATTACKER_IDENTITY it shows that one.

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
use super::{say, streams};
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
        let identity = identity()?;
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
            Ok::<_, Infallible>(answer(request, log))
        }
    });
    // With TLS 1.3 a client that refuses us does so after our handshake is over.
    let http = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service);
    if let Err(error) = http.with_upgrades().await {
        let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        say(&json!({"event": "refused", "why": why}));
    }
}

/// What was given, or what looks as a kubelet's own would and is signed by nobody anybody knows.
fn identity() -> anyhow::Result<Identity> {
    if let Ok(pem) = std::env::var("ATTACKER_IDENTITY") {
        return Ok(Identity { cert_pem: pem.clone().into(), key_pem: pem.into() });
    }
    let issued = pki::self_signed_serving("node")?;
    Ok(Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() })
}

fn answer(request: Request<Incoming>, log: Arc<str>) -> Response<Full<Bytes>> {
    match request.uri().path().split('/').nth(1) {
        Some("exec") => streams::command("exec", request, log),
        Some("attach") => streams::command("attach", request, log),
        Some("portForward") => streams::forward(request, log),
        Some("healthz") => Response::new(Full::from("ok")),
        _ => Response::new(Full::from(log.as_bytes().to_vec())),
    }
}

/// Resolves when whoever started the attack has gone or wants it to end.
pub async fn told_to_end() {
    let Ok(input) = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned() else { return };
    let Ok(mut input) = tokio::net::unix::pipe::Receiver::from_owned_fd(input) else { return };
    let mut buffer = [0; 64];
    while input.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}
