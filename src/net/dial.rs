//! Outgoing connections. Who dials decides the road: directly here, through a tunnel elsewhere.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch::Sender;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ends::Ends;
use super::go_text::io_text;
use super::gulps::Gulps;
use super::listen::tune;

/// Go's dialers give up after this long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// And its TLS handshakes after this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, however it was made.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
pub type BoxStream = Box<dyn Stream>;
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<BoxStream, DialError>> + Send + 'a>>;

/// A road to an address. The API server knows only this; direct and tunnels implement it.
pub trait Dial: Send + Sync {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a>;
}

/// Why no connection came about, in Go's words.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("dial tcp {address}: {}", io_text(source))]
    Connect { address: String, source: io::Error },
    #[error("dial tcp: lookup {host}: no such host")]
    Lookup { host: String, source: io::Error },
    #[error("{}", io_text(source))]
    Handshake { source: io::Error },
    #[error("net/http: TLS handshake timeout")]
    HandshakeTimeout,
    #[error("{0:?} is no name a certificate could have")]
    Name(String),
    /// A tunnel's own words.
    #[error("{0}")]
    Tunnel(String),
}

/// Straight through this network namespace.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Dial for Direct {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move {
            let stream = connect(host, port).await?;
            Ok(match stream.peer_addr() {
                Ok(peer) => Box::new(Ends::of(stream, peer)) as BoxStream,
                // Gone already; the first read says so.
                Err(_) => Box::new(stream),
            })
        })
    }
}

/// By a socket that somebody made in another network namespace, once.
pub struct Given(Mutex<Option<OwnedFd>>);

impl Given {
    pub fn new(socket: OwnedFd) -> Self {
        Self(Mutex::new(Some(socket)))
    }
}

impl Dial for Given {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let address = format!("{host}:{port}");
            let failed = |source| DialError::Connect { address: address.clone(), source };
            let to = address.parse().map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
            let socket = socket.ok_or_else(|| failed(io::ErrorKind::NotConnected.into()))?;
            let socket = TcpSocket::from_std_stream(socket.into());
            Ok(Box::new(socket.connect(to).await.map_err(failed)?) as BoxStream)
        })
    }
}

/// What is at the other end, by the names of an `EgressSelectorConfiguration`. `etcd`, its third, is nobody's
/// here: the store is in the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Egress {
    /// Kubelets, nodes, pods, services, aggregated API servers, and what a webhook names as a service.
    Cluster,
    /// What a webhook names by URL: beside the control plane.
    ControlPlane,
}

/// The API server's roads, by what is at the other end.
#[derive(Clone)]
pub struct Roads {
    pub cluster: Arc<dyn Dial>,
    pub control_plane: Arc<dyn Dial>,
    /// A road that leads through the nodes wants to know their addresses.
    pub nodes: Option<Sender<BTreeSet<String>>>,
}

impl Default for Roads {
    /// Everything is dialled from here.
    fn default() -> Self {
        Self { cluster: Arc::new(Direct), control_plane: Arc::new(Direct), nodes: None }
    }
}

impl fmt::Debug for Roads {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Roads").finish_non_exhaustive()
    }
}

impl Roads {
    /// The road to dial by.
    pub fn to(&self, egress: Egress) -> Arc<dyn Dial> {
        Arc::clone(match egress {
            Egress::Cluster => &self.cluster,
            Egress::ControlPlane => &self.control_plane,
        })
    }
}

/// What the API server's command line says of its roads.
#[derive(Debug, Clone, Default)]
pub struct RoadSigns {
    /// `--egress-selector-config-file`
    pub egress: Option<PathBuf>,
    /// `--ssh-user`; empty is none.
    pub ssh_user: String,
    /// `--ssh-keyfile`
    pub ssh_keyfile: PathBuf,
    /// Hosts' keys that are believed; upstream believed all.
    pub ssh_known_hosts: Option<PathBuf>,
}

/// A tuned TCP connection.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let ip = match host.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => lookup(host).await?,
    };
    let address = std::net::SocketAddr::new(ip, port);
    let failed = |source| DialError::Connect { address: address.to_string(), source };
    let stream = match timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(outcome) => outcome.map_err(failed)?,
        Err(_) => return Err(failed(io::ErrorKind::TimedOut.into())),
    };
    tune(&stream);
    Ok(stream)
}

async fn lookup(host: &str) -> Result<IpAddr, DialError> {
    let unknown = |source| DialError::Lookup { host: host.into(), source };
    let mut found = tokio::net::lookup_host((host, 0)).await.map_err(unknown)?;
    found.next().map(|address| address.ip()).ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))
}

/// TLS over a road; the peer is verified as the configuration says, under the name given.
#[derive(Clone)]
pub struct TlsDialer {
    pub road: Arc<dyn Dial>,
    pub config: Arc<ClientConfig>,
}

impl TlsDialer {
    /// Connects to `host:port`, and checks the certificate for `name` (`tls-server-name`) or else for `host`.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        name: Option<&str>,
    ) -> Result<TlsStream<BoxStream>, DialError> {
        let stream: BoxStream = Box::new(Gulps::new(self.road.dial(host, port).await?));
        let name = name.unwrap_or(host);
        let server = ServerName::try_from(name.to_owned()).map_err(|_| DialError::Name(name.into()))?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        match timeout(HANDSHAKE_TIMEOUT, connector.connect(server, stream)).await {
            Ok(outcome) => outcome.map_err(|source| DialError::Handshake { source }),
            Err(_) => Err(DialError::HandshakeTimeout),
        }
    }
}
