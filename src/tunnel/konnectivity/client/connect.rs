//! A tunnel by the HTTP-CONNECT frontend: on a Unix socket or on TCP, there with mutual TLS if the URL says so.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::config::Tcp;
use super::{joined, unreached};
use crate::net::{
    self, BoxStream, Dial, DialError, Dialing, Direct, Identity, Protocols, TlsDialer, Verify, client_config,
};
use crate::tunnel::konnectivity::{TunnelError, read};

/// No answer's head is longer (`http.DefaultMaxHeaderBytes`).
const LONGEST: usize = 1 << 20;

/// Dials through a server that speaks HTTP.
pub struct Tunnels {
    at: At,
    /// For messages.
    name: String,
}

enum At {
    Socket(PathBuf),
    Plain { host: String, port: u16 },
    Tls { host: String, port: u16, config: Arc<ClientConfig>, server: Option<String> },
}

impl Tunnels {
    pub fn by_socket(path: PathBuf) -> Self {
        Self { name: path.display().to_string(), at: At::Socket(path) }
    }

    pub fn by_tcp(tcp: &Tcp) -> Result<Self, TunnelError> {
        let wrong = || TunnelError::Configuration(format!("{:?} is not a URL of a proxy", tcp.url));
        let url: http::Uri = tcp.url.parse().map_err(|_| wrong())?;
        let host = url.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = url.port_u16().unwrap_or(if tcp.tls_config.is_some() { 443 } else { 80 });
        let name = joined(&host, port);
        let at = match &tcp.tls_config {
            None => At::Plain { host, port },
            Some(tls) => {
                let identity = match (&tls.client_cert, &tls.client_key) {
                    (Some(cert), Some(key)) => Some(Identity { cert_pem: read(cert)?, key_pem: read(key)? }),
                    _ => None,
                };
                // Upstream falls back to the machine's trust store, which a control plane here does not have.
                let bundle = tls.ca_bundle.as_ref().ok_or_else(|| {
                    TunnelError::Configuration("tlsConfig without caBundle trusts nobody here".into())
                })?;
                let verify = Verify::Bundle(read(bundle)?);
                let config = client_config(&verify, identity.as_ref(), Protocols::H1)?;
                At::Tls { host, port, config, server: tls.tls_server_name.clone() }
            }
        };
        Ok(Self { at, name })
    }

    async fn server(&self) -> Result<BoxStream, DialError> {
        Ok(match &self.at {
            At::Socket(path) => {
                Box::new(net::connect_unix(path).await.map_err(|error| unreached(path, &error))?)
            }
            At::Plain { host, port } => Direct.dial(host, *port).await?,
            At::Tls { host, port, config, server } => {
                let dialer = TlsDialer { road: Arc::new(Direct), config: Arc::clone(config) };
                Box::new(dialer.connect(host, *port, server.as_deref()).await?)
            }
        })
    }

    async fn tunnel(&self, address: &str) -> Result<BoxStream, DialError> {
        let mut stream = self.server().await?;
        let failed = |error: io::Error| {
            DialError::Tunnel(format!(
                "reading HTTP response from CONNECT to {address} via proxy {} failed: {}",
                self.name,
                net::io_text(&error)
            ))
        };
        let request = format!("CONNECT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        let head = head(&mut stream).await.map_err(failed)?;
        let line = head.lines().next().unwrap_or_default();
        let status = line.split_once(' ').map_or("", |(_, status)| status.trim());
        let code = status.split(' ').next().unwrap_or_default();
        if code != "200" {
            return Err(DialError::Tunnel(format!(
                "proxy error from {} while dialing {address}, code {code}: {status}",
                self.name
            )));
        }
        Ok(stream)
    }
}

/// An answer's head and not a byte more: what follows belongs to the tunnel.
async fn head(stream: &mut BoxStream) -> io::Result<String> {
    let mut head = Vec::with_capacity(64);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

impl Dial for Tunnels {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move {
            let address = joined(host, port);
            match tokio::time::timeout(std::time::Duration::from_secs(30), self.tunnel(&address)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(DialError::Tunnel(format!("dial tcp {address}: i/o timeout"))),
            }
        })
    }
}
