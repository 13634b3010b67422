//! The agents' door: TLS, the Connect call, who the agent says it is and whether that is so.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::Shared;
use super::backend::Backend;
use super::identifiers::Identifiers;
use super::token::Tokens;
use crate::net;
use crate::tunnel::konnectivity::flow::Credits;
use crate::tunnel::konnectivity::header;
use crate::tunnel::konnectivity::rpc::{self, Answered, Answering, Asked, Outbox};

const HANDSHAKE: Duration = Duration::from_secs(10);

/// The agents' listener and how they are judged.
pub struct Door {
    pub shared: Arc<Shared>,
    pub tls: Arc<ServerConfig>,
    /// By service-account token; without it whoever passes TLS is an agent.
    ///
    /// # Warning
    ///
    /// Without it and without a client CA anybody who reaches the port is sent the API server's connections.
    pub tokens: Option<Tokens>,
    pub keepalive: Duration,
    pub stop: CancellationToken,
}

impl Door {
    /// Takes agents until the role stops.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&self).connection(stream))),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        net::tune(&stream);
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        let tls = match timeout(HANDSHAKE, TlsAcceptor::from(Arc::clone(&self.tls)).accept(stream)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::info!(error = net::io_text(&error), peer, "an agent's TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        // grpc-go refuses a peer that does not agree on h2.
        if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
            tracing::info!(peer, "an agent did not negotiate h2");
            return;
        }
        let (keepalive, stop) = (self.keepalive, self.stop.clone());
        let handler = move |request| Arc::clone(&self).connect(request);
        rpc::serve(tls, rpc::CONNECT, keepalive, stop, handler).await;
    }

    /// One stream of one agent.
    async fn connect(self: Arc<Self>, request: Asked) -> Answered {
        let (metadata, _, incoming) = request.into_parts();
        let (agent, identifiers) = identity(&metadata).map_err(Status::unknown)?;
        if let Some(tokens) = &self.tokens {
            tokens.check(&metadata).await.map_err(|error| {
                tracing::error!(agentID = agent, error, "authenticating the agent failed");
                Status::unknown(error)
            })?;
        }
        let credits = header::asked_for_credits(&metadata);
        let (outbox, outgoing) = Outbox::new(&self.stop);
        let counts = Arc::clone(&self.shared.counts);
        let backend = Arc::new(Backend::new(agent, identifiers, outbox, credits, counts));
        let mut response = Response::new(Answering(outgoing));
        header::answer(response.metadata_mut(), &self.shared.server_id, self.shared.server_count, credits);
        tracing::info!(agentID = backend.agent, own = credits == Credits::Agreed, "Agent connected");
        let shared = Arc::clone(&self.shared);
        shared.backends.add(Arc::clone(&backend));
        tokio::spawn(async move {
            let _counted = shared.counts.connects.held();
            backend.serve(incoming).await;
            shared.backends.remove(&backend);
        });
        Ok(response)
    }
}

/// `agentid` once, `agentidentifiers` at most once.
fn identity(metadata: &MetadataMap) -> Result<(String, Identifiers), String> {
    let all = |name: &str| -> Vec<String> {
        let values = metadata.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    let ids = all(header::AGENT_ID);
    let [agent] = ids.as_slice() else {
        return Err(format!("expected one agent ID in the context, got [{}]", ids.join(" ")));
    };
    let identifiers = all(header::AGENT_IDENTIFIERS);
    let identifiers = match identifiers.as_slice() {
        [] => Identifiers::default(),
        [one] => {
            Identifiers::parse(one).map_err(|error| format!("fail to parse url encoded string: {error}"))?
        }
        more => return Err(format!("expected at most one agent identifiers in the context, got {more:?}")),
    };
    Ok((agent.clone(), identifiers))
}
