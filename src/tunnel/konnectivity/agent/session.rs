//! One stream to one server: reads it, and never waits for a destination while it does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::counts::Counts;
use super::endpoint;
use crate::tunnel::konnectivity::flow::{Budget, Credit, Credits, Inbox};
use crate::tunnel::konnectivity::packet::{Data, DialRequest, Message, Packet};
use crate::tunnel::konnectivity::rpc::{Ended, Outbox};

/// A stream's tunnels and what is being dialled for it.
#[derive(Debug)]
pub struct Session {
    pub counts: Arc<Counts>,
    outbox: Outbox,
    credits: Credits,
    budget: Arc<Budget>,
    next_id: AtomicI64,
    tunnels: Mutex<Tunnels>,
}

#[derive(Debug, Default)]
struct Tunnels {
    /// By the dial's number, until it has an answer.
    dialling: HashMap<i64, (i64, AbortHandle)>,
    open: HashMap<i64, (Arc<Open>, AbortHandle)>,
}

/// One tunnel's two flows.
#[derive(Debug)]
pub struct Open {
    pub id: i64,
    /// To the destination.
    pub inbox: Inbox,
    /// From it.
    pub credit: Credit,
    /// The server wants it closed; what came before is still written.
    pub closing: CancellationToken,
}

impl Session {
    pub fn new(outbox: Outbox, credits: Credits, counts: Arc<Counts>) -> Arc<Self> {
        Arc::new(Self {
            counts,
            outbox,
            credits,
            budget: Arc::default(),
            next_id: AtomicI64::new(1),
            tunnels: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Tunnels> {
        self.tunnels.lock().expect("nothing panics while holding the lock")
    }

    /// Sends ahead of data that waits.
    pub fn tell(&self, message: Message) -> Result<(), Ended> {
        self.counts.packet("to_server", &message);
        self.outbox.urgent(message)
    }

    /// Sends in its turn.
    pub async fn say(&self, message: Message) -> Result<(), Ended> {
        self.counts.packet("to_server", &message);
        self.outbox.send(message).await
    }

    pub fn forget(&self, id: i64) {
        let mut tunnels = self.lock();
        tunnels.open.remove(&id);
        tunnels.dialling.retain(|_, (own, _)| *own != id);
    }

    /// Reads the stream until it ends, then closes everything that ran over it.
    pub async fn serve(self: &Arc<Self>, mut incoming: Streaming<Packet>) -> String {
        let reason = loop {
            let packet = tokio::select! {
                packet = incoming.message() => packet,
                () = self.outbox.closed() => break "the stream was closed".to_owned(),
            };
            match packet {
                Ok(Some(packet)) => {
                    let message = Message::from(packet);
                    self.counts.packet("from_server", &message);
                    self.take(message).await;
                }
                Ok(None) => break "EOF".into(),
                Err(status) => {
                    break format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
                }
            }
        };
        let tunnels = std::mem::take(&mut *self.lock());
        tunnels.open.into_values().for_each(|(_, task)| task.abort());
        tunnels.dialling.into_values().for_each(|(_, task)| task.abort());
        reason
    }

    async fn take(self: &Arc<Self>, message: Message) {
        match message {
            Message::DialRequest(request) => self.dial(request),
            Message::Data(data) => self.data(data).await,
            Message::CloseRequest { id } => self.close(id).await,
            Message::CloseDial { random } => {
                if let Some((_, task)) = self.lock().dialling.remove(&random) {
                    task.abort();
                }
            }
            other => tracing::debug!(packet = other.name(), "Ignoring unexpected packet"),
        }
    }

    fn dial(self: &Arc<Self>, request: DialRequest) {
        let open = Arc::new(Open {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            inbox: Inbox::new(self.credits, Arc::clone(&self.budget)),
            credit: Credit::new(self.credits),
            closing: CancellationToken::new(),
        });
        let (id, random) = (open.id, request.random);
        // Held, so that the task's end cannot come before its place is known.
        let mut tunnels = self.lock();
        let task = tokio::spawn(endpoint::serve(Arc::clone(self), request, open));
        if let Some((_, older)) = tunnels.dialling.insert(random, (id, task.abort_handle())) {
            older.abort();
        }
    }

    /// A dial has become a tunnel; it is there before the server hears of it.
    pub fn connected(&self, request: &DialRequest, open: &Arc<Open>) {
        let mut tunnels = self.lock();
        if let Some((_, task)) = tunnels.dialling.remove(&request.random) {
            tunnels.open.insert(open.id, (Arc::clone(open), task));
        }
    }

    fn tunnel(&self, id: i64) -> Option<Arc<Open>> {
        self.lock().open.get(&id).map(|(open, _)| Arc::clone(open))
    }

    async fn data(self: &Arc<Self>, data: Data) {
        let Data { connect_id: id, data, credit, .. } = data;
        if id == 0 {
            tracing::error!("Received packet missing ConnectID from server");
            return;
        }
        let Some(open) = self.tunnel(id) else {
            if !data.is_empty() {
                let _ = self.tell(Message::CloseResponse { id, error: "unrecognized connectID".into() });
            }
            return;
        };
        open.credit.give(credit);
        if data.is_empty() {
            return;
        }
        if let Err(overflow) = open.inbox.push(data).await {
            tracing::warn!(connectionID = id, error = %overflow, "Closing a connection");
            self.counts.stalled();
            if let Some((_, task)) = self.lock().open.remove(&id) {
                task.abort();
            }
            let _ = self.tell(Message::CloseResponse { id, error: overflow.to_string() });
        }
    }

    async fn close(self: &Arc<Self>, id: i64) {
        match self.tunnel(id) {
            Some(open) => {
                open.inbox.finish(String::new());
                open.closing.cancel();
            }
            None => {
                let error = "Unknown connectID".into();
                let _ = self.tell(Message::CloseResponse { id, error });
            }
        }
    }
}
