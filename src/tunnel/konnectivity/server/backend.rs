//! One agent's stream: dials sent into it, tunnels that run over it, and the loop that reads it.
//!
//! Keyed by stream, never by the agent's name: two streams of one agent number their tunnels alike
//! (apiserver-network-proxy#462). The reading loop never waits for a frontend that stands still.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::Counts;
use super::identifiers::Identifiers;
use super::tunnel::Tunnel;
use crate::tunnel::konnectivity::flow::{Budget, Credits};
use crate::tunnel::konnectivity::packet::{Data, DialRequest, DialResponse, Message, Packet};
use crate::tunnel::konnectivity::rpc::Outbox;

/// An agent, as far as one of its streams goes.
#[derive(Debug)]
pub struct Backend {
    pub agent: String,
    pub identifiers: Identifiers,
    pub outbox: Outbox,
    pub credits: Credits,
    pub counts: Arc<Counts>,
    budget: Arc<Budget>,
    draining: AtomicBool,
    /// Cancelled when the stream has ended.
    gone: CancellationToken,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    dialling: HashMap<i64, oneshot::Sender<Result<Arc<Tunnel>, String>>>,
    tunnels: HashMap<i64, Arc<Tunnel>>,
}

/// Why there is no tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialFailure {
    /// The agent's words.
    #[error("{0}")]
    Refused(String),
    #[error("the agent's stream has ended")]
    Gone,
}

impl Backend {
    pub fn new(
        agent: String,
        identifiers: Identifiers,
        outbox: Outbox,
        credits: Credits,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            agent,
            identifiers,
            outbox,
            credits,
            counts,
            budget: Arc::default(),
            draining: AtomicBool::new(false),
            gone: CancellationToken::new(),
            open: Mutex::default(),
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("nothing panics while holding the lock")
    }

    /// Asks the agent for a connection. Dropped, the dial is called off.
    pub async fn dial(self: &Arc<Self>, mut request: DialRequest) -> Result<Arc<Tunnel>, DialFailure> {
        let (tell, told) = oneshot::channel();
        {
            let mut open = self.lock();
            // Frontends choose these numbers without each other.
            while open.dialling.contains_key(&request.random) {
                request.random = super::random();
            }
            open.dialling.insert(request.random, tell);
        }
        let _pending = self.counts.pending_dials.held();
        let mut called_off = CalledOff { backend: self, random: Some(request.random) };
        self.tell(Message::DialRequest(request)).map_err(|_| DialFailure::Gone)?;
        let outcome = tokio::select! {
            biased;
            outcome = told => outcome.map_err(|_| DialFailure::Gone),
            () = self.gone.cancelled() => Err(DialFailure::Gone),
        };
        called_off.random = None;
        outcome?.map_err(DialFailure::Refused)
    }

    /// Sends what must not wait behind data.
    pub fn tell(&self, message: Message) -> Result<(), DialFailure> {
        self.counts.packet("to_agent", &message);
        self.outbox.urgent(message).map_err(|_| DialFailure::Gone)
    }

    pub fn has(&self, id: i64) -> bool {
        self.lock().tunnels.contains_key(&id)
    }

    pub fn forget(&self, id: i64) {
        self.lock().tunnels.remove(&id);
    }

    /// Reads the stream until it ends, then ends everything that ran over it.
    pub async fn serve(self: &Arc<Self>, mut incoming: Streaming<Packet>) {
        let reason = loop {
            let packet = tokio::select! {
                packet = incoming.message() => packet,
                () = self.outbox.closed() => break "the stream was closed".to_owned(),
            };
            match packet {
                Ok(Some(packet)) => {
                    let message = Message::from(packet);
                    self.counts.packet("from_agent", &message);
                    self.take(message).await;
                }
                Ok(None) => break "EOF".into(),
                Err(status) => break status.to_string(),
            }
        };
        tracing::info!(agentID = self.agent, reason, "Agent disconnected");
        self.gone.cancel();
        let open = std::mem::take(&mut *self.lock());
        for tunnel in open.tunnels.into_values() {
            tunnel.ended_by_agent(String::new());
        }
    }

    async fn take(self: &Arc<Self>, message: Message) {
        match message {
            Message::DialResponse(answer) => self.dialled(answer),
            Message::CloseDial { random } => {
                self.counts.dial_failure("backend_close");
                self.answer(random, Err("DIAL_CLS".into()));
            }
            Message::Data(data) => self.data(data).await,
            Message::CloseResponse { id, error } => {
                let tunnel = self.lock().tunnels.remove(&id);
                if let Some(tunnel) = tunnel {
                    tunnel.ended_by_agent(error);
                }
            }
            Message::Drain => {
                tracing::info!(agentID = self.agent, "agent is draining");
                self.draining.store(true, Ordering::Release);
            }
            // Only frontends send these.
            other => {
                tracing::warn!(agentID = self.agent, packet = other.name(), "Ignoring unexpected packet")
            }
        }
    }

    /// Hands the outcome to who waits for it; false if nobody does.
    fn answer(&self, random: i64, outcome: Result<Arc<Tunnel>, String>) -> bool {
        let waiting = self.lock().dialling.remove(&random);
        waiting.is_some_and(|waiting| waiting.send(outcome).is_ok())
    }

    /// The tunnel is there before anybody hears of it, so that a destination that speaks first loses nothing.
    fn dialled(self: &Arc<Self>, answer: DialResponse) {
        let DialResponse { error, connect_id: id, random } = answer;
        if !error.is_empty() || id == 0 {
            self.counts.dial_failure("error_response");
            let error = if error.is_empty() { "the agent gave no connection".into() } else { error };
            self.answer(random, Err(error));
            return;
        }
        let tunnel = Arc::new(Tunnel::new(self, id, Arc::clone(&self.budget)));
        self.lock().tunnels.insert(id, Arc::clone(&tunnel));
        if !self.answer(random, Ok(tunnel)) {
            self.counts.dial_failure("unrecognized_response");
            self.forget(id);
            let _ = self.tell(Message::CloseRequest { id });
        }
    }

    async fn data(self: &Arc<Self>, data: Data) {
        let Data { connect_id: id, data, credit, .. } = data;
        if id == 0 {
            tracing::error!(agentID = self.agent, "Received packet missing ConnectID from agent");
            return;
        }
        let tunnel = self.lock().tunnels.get(&id).cloned();
        let Some(tunnel) = tunnel else {
            // Credit for what has just been closed needs no answer.
            if !data.is_empty() {
                let _ = self.tell(Message::CloseRequest { id });
            }
            return;
        };
        tunnel.credit.give(credit);
        if data.is_empty() {
            return;
        }
        if let Err(overflow) = tunnel.inbox.push(data).await {
            tracing::warn!(agentID = self.agent, connectionID = id, error = %overflow, "Closing a tunnel");
            self.counts.stalled("to_client");
            self.forget(id);
            let _ = self.tell(Message::CloseRequest { id });
            tunnel.ended_by_agent(overflow.to_string());
        }
    }
}

/// A dial nobody waits for any more.
struct CalledOff<'a> {
    backend: &'a Arc<Backend>,
    random: Option<i64>,
}

impl Drop for CalledOff<'_> {
    fn drop(&mut self) {
        if let Some(random) = self.random {
            self.backend.lock().dialling.remove(&random);
            // Upstream's agent ignores this, and is told by CLOSE_REQ once its answer comes.
            let _ = self.backend.tell(Message::CloseDial { random });
        }
    }
}
