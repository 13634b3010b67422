//! The gRPC frontend: upstream's client library, and so the API server, asks for one tunnel a stream
//! (`/ProxyService/Proxy`).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tonic::{Response, Streaming};

use super::Shared;
use super::backend::{Backend, DialFailure};
use super::tunnel::{Lease, Tunnel};
use crate::tunnel::konnectivity::packet::{DialRequest, Message, Packet};
use crate::tunnel::konnectivity::rpc::{Answered, Answering, Asked, Ended, Outbox};

/// What upstream's server says when there is nobody to ask.
pub const NO_AGENT: &str = "No agent available";

/// Serves one stream.
pub async fn proxy(shared: Arc<Shared>, request: Asked) -> Answered {
    let (outbox, outgoing) = Outbox::new(&CancellationToken::new());
    let incoming = request.into_inner();
    tokio::spawn(async move {
        let _counted = shared.counts.proxies.held();
        let frontend = Frontend { shared, outbox };
        // Either end's going is the end of it; what is left is closed by what is dropped here.
        let _ = frontend.serve(incoming).await;
    });
    Ok(Response::new(Answering(outgoing)))
}

struct Frontend {
    shared: Arc<Shared>,
    outbox: Outbox,
}

impl Frontend {
    async fn serve(self, mut incoming: Streaming<Packet>) -> Result<(), Ended> {
        let request = self.first(&mut incoming).await?;
        let random = request.random;
        let Some(backend) = self.shared.choose(&request.address) else {
            self.shared.counts.dial_failure("no_agent");
            self.say(Message::not_dialled(random, NO_AGENT)).await?;
            return self.until_gone(incoming).await;
        };
        match self.dial(backend, request, &mut incoming).await? {
            Ok(tunnel) => {
                let lease = Lease(tunnel);
                self.say(Message::dialled(random, lease.0.id)).await?;
                // Nothing comes after the last word: the stream's end tells a client that still writes.
                return self.carry(&lease.0, &mut incoming).await;
            }
            Err(DialFailure::Refused(error)) => self.say(Message::not_dialled(random, error)).await?,
            Err(error @ DialFailure::Gone) => {
                self.shared.counts.dial_failure("backend_close");
                self.say(Message::not_dialled(random, error.to_string())).await?;
            }
        }
        self.until_gone(incoming).await
    }

    async fn say(&self, message: Message) -> Result<(), Ended> {
        self.shared.counts.packet("to_client", &message);
        self.outbox.send(message).await
    }

    async fn next(&self, incoming: &mut Streaming<Packet>) -> Result<Message, Ended> {
        let packet = tokio::select! {
            packet = incoming.message() => packet,
            () = self.outbox.closed() => return Err(Ended),
        };
        let message = packet.ok().flatten().map(Message::from).ok_or(Ended)?;
        self.shared.counts.packet("from_client", &message);
        Ok(message)
    }

    async fn until_gone(&self, mut incoming: Streaming<Packet>) -> Result<(), Ended> {
        loop {
            self.next(&mut incoming).await?;
        }
    }

    /// Everything but a dial is refused or means nothing yet.
    async fn first(&self, incoming: &mut Streaming<Packet>) -> Result<DialRequest, Ended> {
        loop {
            match self.next(incoming).await? {
                Message::DialRequest(request) => return Ok(request),
                Message::Data(data) => self.not_yet(data.connect_id).await?,
                other => tracing::debug!(packet = other.name(), "Ignoring a packet before any dial"),
            }
        }
    }

    async fn not_yet(&self, id: i64) -> Result<(), Ended> {
        let error = "backend not initialized".into();
        self.say(Message::CloseResponse { id, error }).await
    }

    /// Waits for the agent, and for the frontend's change of mind.
    async fn dial(
        &self,
        backend: Arc<Backend>,
        request: DialRequest,
        incoming: &mut Streaming<Packet>,
    ) -> Result<Result<Arc<Tunnel>, DialFailure>, Ended> {
        let random = request.random;
        let mut dialling = std::pin::pin!(self.shared.dial(&backend, request));
        loop {
            tokio::select! {
                outcome = &mut dialling => return Ok(outcome),
                message = self.next(incoming) => match message {
                    Ok(Message::CloseDial { random: own }) if own == random => {
                        self.shared.counts.dial_failure("frontend_close");
                        return Err(Ended);
                    }
                    Ok(Message::Data(data)) => self.not_yet(data.connect_id).await?,
                    Ok(_) => {}
                    Err(ended) => {
                        self.shared.counts.dial_failure("frontend_close");
                        return Err(ended);
                    }
                },
            }
        }
    }

    /// Both ways at once, until the agent says that it is over.
    async fn carry(&self, tunnel: &Tunnel, incoming: &mut Streaming<Packet>) -> Result<(), Ended> {
        let mut down = std::pin::pin!(self.down(tunnel));
        let up = async {
            if self.up(tunnel, incoming).await.is_err() {
                return Err(Ended);
            }
            // It asked to close: only the answer is waited for.
            std::future::pending::<()>().await;
            Ok(())
        };
        tokio::select! {
            biased;
            outcome = &mut down => outcome,
            outcome = up => outcome,
            overflow = tunnel.stalled() => {
                tracing::warn!(connectionID = tunnel.id, error = %overflow, "Closing a tunnel");
                self.say(Message::CloseResponse { id: tunnel.id, error: overflow.to_string() }).await
            }
            () = self.outbox.closed() => Err(Ended),
        }
    }

    async fn down(&self, tunnel: &Tunnel) -> Result<(), Ended> {
        loop {
            match tunnel.receive().await {
                Ok(data) => self.say(Message::data(tunnel.id, data)).await?,
                Err(error) => return self.say(Message::CloseResponse { id: tunnel.id, error }).await,
            }
        }
    }

    /// Ends well once the frontend asked to close.
    async fn up(&self, tunnel: &Tunnel, incoming: &mut Streaming<Packet>) -> Result<(), Ended> {
        loop {
            match self.next(incoming).await? {
                Message::Data(data) if data.connect_id == 0 => {
                    tracing::error!("Received packet missing ConnectID from frontend");
                }
                Message::Data(data) if data.connect_id != tunnel.id => {
                    return self.mismatched(tunnel, data.connect_id).await;
                }
                // When the agent has ended it, its word is on its way down.
                Message::Data(data) => drop(tunnel.send(data.data).await),
                Message::CloseRequest { .. } => return tunnel.close().await,
                other => tracing::debug!(packet = other.name(), "Ignoring a packet in a tunnel"),
            }
        }
    }

    /// One stream carries one tunnel; a second one's id ends both.
    async fn mismatched(&self, tunnel: &Tunnel, other: i64) -> Result<(), Ended> {
        for id in [tunnel.id, other] {
            tunnel.close_other(id).await;
            self.say(Message::CloseResponse { id, error: "mismatched connection IDs".into() }).await?;
        }
        Err(Ended)
    }
}
