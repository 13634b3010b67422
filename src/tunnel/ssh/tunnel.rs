//! One connection to one node's sshd, and what is dialled through it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use russh::ChannelOpenFailure;
use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channel::Forwarded;
use super::known::HostKeys;
use crate::net::{Dial, DialError, Direct, go_text};

/// Where a node's sshd listens.
const PORT: u16 = 22;
/// A node that is gone acknowledges nothing, and one that is there does at once.
const CONNECT: Duration = Duration::from_secs(2);
/// Upstream's: how long sshd may take to answer each step of the handshake, and of a dial.
const ANSWER: Duration = Duration::from_secs(30);

/// What a login needs.
#[derive(Clone)]
pub struct Credentials {
    pub user: String,
    pub key: Arc<PrivateKey>,
    pub hosts: HostKeys,
}

/// An open connection.
pub struct Tunnel {
    handle: Handle<Watcher>,
    /// Cancelled when the connection has ended.
    pub closed: CancellationToken,
}

/// russh's side of a connection: judges the host's key, and is dropped when the connection ends.
struct Watcher {
    host: String,
    port: u16,
    hosts: HostKeys,
    refusal: Arc<Mutex<Option<&'static str>>>,
    _closes: DropGuard,
}

impl client::Handler for Watcher {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let verdict = match (shown, &self.hosts) {
            (PublicKeyOrCertificate::PublicKey { key, .. }, hosts) => {
                hosts.accept(&self.host, self.port, key)
            }
            (PublicKeyOrCertificate::Certificate(_), HostKeys::Ignored) => Ok(()),
            (PublicKeyOrCertificate::Certificate(_), _) => Err("knownhosts: key is unknown"),
        };
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        *refusal = verdict.err();
        Ok(refusal.is_none())
    }
}

impl Tunnel {
    /// Logs in to a node.
    pub async fn open(host: &str, port: Option<u16>, with: &Credentials) -> Result<Self, DialError> {
        let port = port.unwrap_or(PORT);
        let stream = match timeout(CONNECT, Direct.dial(host, port)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(DialError::Tunnel(format!("dial tcp {host}:{port}: i/o timeout"))),
        };
        let closed = CancellationToken::new();
        let refusal = Arc::new(Mutex::new(None));
        let watcher = Watcher {
            host: host.to_owned(),
            port,
            hosts: with.hosts.clone(),
            refusal: Arc::clone(&refusal),
            _closes: closed.clone().drop_guard(),
        };
        let failed = |why: String| DialError::Tunnel(format!("ssh: handshake failed: {why}"));
        let shaken = timeout(ANSWER, client::connect_stream(Arc::default(), stream, watcher)).await;
        let mut handle = match shaken {
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) => {
                let refusal = *refusal.lock().unwrap_or_else(PoisonError::into_inner);
                return Err(failed(refusal.map_or_else(|| error.to_string(), str::to_owned)));
            }
            Err(_) => return Err(failed("i/o timeout".into())),
        };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&with.key), None);
        match timeout(ANSWER, handle.authenticate_publickey(&with.user, key)).await {
            Ok(Ok(outcome)) if outcome.success() => Ok(Self { handle, closed }),
            Ok(Ok(_)) => Err(failed(
                "ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain"
                    .into(),
            )),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("i/o timeout".into())),
        }
    }

    /// Has sshd dial.
    pub async fn dial(&self, host: &str, port: u16) -> Result<Forwarded, DialError> {
        let opening = self.handle.channel_open_direct_tcpip(host, port.into(), "0.0.0.0", 0);
        match timeout(ANSWER, opening).await {
            Ok(Ok(channel)) => Ok(Forwarded::new(channel)),
            Ok(Err(russh::Error::ChannelOpenFailure(reason))) => Err(DialError::Tunnel(rejected(&reason))),
            Ok(Err(_)) => {
                self.closed.cancel();
                Err(DialError::Tunnel("ssh: unexpected packet in response to channel open: <nil>".into()))
            }
            Err(_) => Err(DialError::Tunnel(format!("dial tcp {host}:{port}: i/o timeout"))),
        }
    }

    /// Asks the node's own kubelet how it is; any answer over HTTPS is a good one.
    pub async fn check(&self, tls: &TlsConnector, kubelet: u16) -> Result<(), String> {
        let url = format!("Get \"https://127.0.0.1:{kubelet}/healthz\"");
        let asked = async {
            let stream = self.dial("127.0.0.1", kubelet).await.map_err(|error| go_text(&error))?;
            let name = ServerName::try_from("127.0.0.1").map_err(|error| go_text(&error))?;
            let stream = tls.connect(name, stream).await.map_err(|error| go_text(&error))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| go_text(&error))?;
            let request = http::Request::get("/healthz")
                .header(http::header::HOST, "127.0.0.1")
                .body(Empty::<Bytes>::new())
                .map_err(|error| go_text(&error))?;
            tokio::select! {
                answer = sender.send_request(request) => answer.map(drop).map_err(|error| go_text(&error)),
                outcome = connection => outcome.map_err(|error| go_text(&error)).and(Err("EOF".to_owned())),
            }
        };
        match timeout(ANSWER, asked).await {
            Ok(outcome) => outcome.map_err(|error| format!("{url}: {error}")),
            Err(_) => Err(format!("{url}: context deadline exceeded")),
        }
    }

    /// Ends the connection, and with it everything that goes through it.
    pub async fn close(&self) {
        let _ = self.handle.disconnect(russh::Disconnect::ByApplication, "", "").await;
    }
}

/// Go's words for a channel that was not opened.
fn rejected(reason: &ChannelOpenFailure) -> String {
    let name = match reason {
        ChannelOpenFailure::AdministrativelyProhibited => "administratively prohibited",
        ChannelOpenFailure::ConnectFailed => "connect failed",
        ChannelOpenFailure::UnknownChannelType => "unknown channel type",
        ChannelOpenFailure::ResourceShortage => "resource shortage",
        ChannelOpenFailure::Other { .. } => "unknown reason",
    };
    format!("ssh: rejected: {name} ({})", reason.description())
}
