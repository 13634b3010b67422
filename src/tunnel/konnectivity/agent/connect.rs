//! Getting to a server: TCP, TLS, the Connect call, and who answered (`pkg/agent/client.go`).

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};

use super::counts::Counts;
use super::flags::Flags;
use super::session::Session;
use crate::net::{Dial, DialError, Dialing, Direct, Identity, Protocols, TlsDialer, Verify, client_config};
use crate::tunnel::konnectivity::header::{self, Server};
use crate::tunnel::konnectivity::packet::Packet;
use crate::tunnel::konnectivity::rpc::{self, Connection, Outbox};
use crate::tunnel::konnectivity::{TunnelError, read};

/// Upstream waits for the answer's headers for ever, which one silent server turns into no tunnel at all.
const ANSWER: Duration = Duration::from_secs(20);

/// How servers are reached.
pub struct Road {
    flags: Flags,
    pub id: String,
    tls: Arc<ClientConfig>,
    /// The node's pods, once known.
    range: OnceCell<String>,
}

/// A connection attempt that nobody answers is made anew after this long: the kernel would wait ever longer
/// between its own tries, and find a network that is back only much later.
struct Soon(Duration);

impl Dial for Soon {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move {
            timeout(self.0, Direct.dial(host, port)).await.unwrap_or_else(|_| {
                let source = std::io::ErrorKind::TimedOut.into();
                Err(DialError::Connect { address: format!("{host}:{port}"), source })
            })
        })
    }
}

/// A server that took us in.
pub struct Joined {
    pub server: Server,
    pub session: Arc<Session>,
    pub incoming: Streaming<Packet>,
    pub connection: Connection,
}

impl Road {
    pub fn build(flags: &Flags) -> Result<Self, TunnelError> {
        let identity = match flags.agent_cert.as_os_str().is_empty() {
            true => None,
            false => Some(Identity { cert_pem: read(&flags.agent_cert)?, key_pem: read(&flags.agent_key)? }),
        };
        let verify = Verify::Bundle(read(&flags.ca_cert)?);
        let id = match flags.agent_id.as_str() {
            "" => uuid::Uuid::new_v4().to_string(),
            id => id.to_owned(),
        };
        let mut tls = client_config(&verify, identity.as_ref(), Protocols::H2)?;
        let more = flags.alpn_proto.iter().filter(|name| !matches!(name.as_str(), "" | "[]"));
        let more: Vec<Vec<u8>> = more.map(|name| name.as_bytes().to_vec()).collect();
        if !more.is_empty() {
            // gRPC's own goes last, as in Go.
            Arc::make_mut(&mut tls).alpn_protocols.splice(0..0, more);
        }
        Ok(Self { flags: flags.clone(), id, tls, range: OnceCell::new() })
    }

    /// One attempt; the error is for a person.
    pub async fn join(&self, counts: &Arc<Counts>, end: &CancellationToken) -> Result<Joined, String> {
        let (host, port) = (self.flags.proxy_server_host.as_str(), self.flags.proxy_server_port);
        let dialer =
            TlsDialer { road: Arc::new(Soon(self.flags.sync_interval_cap)), config: Arc::clone(&self.tls) };
        let io = dialer.connect(host, port, None).await.map_err(|error| error.to_string())?;
        let (outbox, outgoing) = Outbox::new(end);
        let mut request = Request::new(outgoing);
        let identifiers = self.identifiers().await;
        header::introduce(request.metadata_mut(), &self.id, &identifiers)?;
        if let Some(token) = self.token()? {
            request.metadata_mut().insert("authorization", token);
        }
        let authority = format!("{host}:{port}");
        let opening = rpc::open(io, &authority, rpc::CONNECT, Some(self.flags.keepalive_time), request);
        let opened = timeout(ANSWER, opening).await.map_err(|_| "the server gave no answer".to_owned())?;
        let opened = opened
            .map_err(|status| format!("rpc error: code = {:?} desc = {}", status.code(), status.message()))?;
        let server = header::server(&opened.metadata)?;
        let session = Session::new(outbox, server.credits, Arc::clone(counts));
        Ok(Joined { server, session, incoming: opened.incoming, connection: opened.connection })
    }

    /// With `cidr=auto` resolved. The pods' range may come later than the agent; then it does without.
    async fn identifiers(&self) -> String {
        let given = &self.flags.agent_identifiers;
        match super::node::asks(given) {
            None => given.clone(),
            Some(node) => {
                let range = self.range.get_or_try_init(|| super::node::range(&self.flags, node)).await;
                super::node::resolved(given, range.ok().map(String::as_str))
            }
        }
    }

    /// Read anew each time: the kubelet renews it.
    fn token(&self) -> Result<Option<MetadataValue<tonic::metadata::Ascii>>, String> {
        let path = &self.flags.service_account_token_path;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let token = std::fs::read_to_string(path)
            .map_err(|error| format!("failed to read token from {path:?}: {error}"))?;
        let value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| format!("the token in {path:?} is no header"))?;
        Ok(Some(value))
    }
}
