//! One tunnel as the server has it, whichever frontend asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::backend::Backend;
use crate::tunnel::konnectivity::flow::{Budget, Credit, Inbox, Overflow};
use crate::tunnel::konnectivity::metrics::Held;
use crate::tunnel::konnectivity::packet::Message;
use crate::tunnel::konnectivity::rpc::Ended;

/// A connection the agent made. Dropped by its frontend, the agent closes it at once.
#[derive(Debug)]
pub struct Tunnel {
    pub id: i64,
    /// What came from the destination.
    pub inbox: Inbox,
    /// What may still go to it.
    pub credit: Credit,
    backend: std::sync::Weak<Backend>,
    /// The agent knows that it is over, or said so.
    closed: AtomicBool,
    _counted: Held,
}

impl Tunnel {
    pub fn new(backend: &Arc<Backend>, id: i64, budget: Arc<Budget>) -> Self {
        Self {
            id,
            inbox: Inbox::new(backend.credits, budget),
            credit: Credit::new(backend.credits),
            closed: AtomicBool::new(false),
            _counted: backend.counts.established.held(),
            backend: Arc::downgrade(backend),
        }
    }

    /// The agent closed it, or is gone: what arrived before can still be read.
    pub fn ended_by_agent(&self, error: String) {
        self.closed.store(true, Ordering::Release);
        self.credit.close();
        self.inbox.finish(error);
    }

    /// Sends bytes to the destination as credit allows.
    pub async fn send(&self, mut data: Bytes) -> Result<(), Ended> {
        let backend = self.backend.upgrade().ok_or(Ended)?;
        while !data.is_empty() {
            let length = self.credit.take(data.len()).await.ok_or(Ended)?;
            if self.closed.load(Ordering::Acquire) {
                return Err(Ended);
            }
            let message = Message::data(self.id, data.split_to(length));
            backend.counts.packet("to_agent", &message);
            backend.outbox.send(message).await?;
        }
        Ok(())
    }

    /// The next bytes from the destination; an end with the agent's reason.
    pub async fn receive(&self) -> Result<Bytes, String> {
        let taken = self.inbox.next().await?;
        if taken.credit > 0
            && let Some(backend) = self.backend.upgrade()
        {
            let _ = backend.tell(Message::credit(self.id, taken.credit as u64));
        }
        Ok(taken.data)
    }

    /// Asks the agent to close, after what was sent; its answer comes as the end of [`Self::receive`].
    pub async fn close(&self) -> Result<(), Ended> {
        let backend = self.backend.upgrade().ok_or(Ended)?;
        let message = Message::CloseRequest { id: self.id };
        backend.counts.packet("to_agent", &message);
        backend.outbox.send(message).await
    }

    /// Asks the agent to close what the frontend called by this id; another tunnel's only if it is nobody's.
    pub async fn close_other(&self, id: i64) {
        let Some(backend) = self.backend.upgrade() else { return };
        if id == self.id {
            self.closed.store(true, Ordering::Release);
            backend.forget(id);
        } else if backend.has(id) {
            return;
        }
        let _ = backend.outbox.send(Message::CloseRequest { id }).await;
    }

    /// Resolves when the frontend has stopped reading for too long.
    pub async fn stalled(&self) -> Overflow {
        self.inbox.stalled().await;
        if let Some(backend) = self.backend.upgrade() {
            backend.counts.stalled("to_client");
        }
        Overflow::Stalled
    }
}

/// Held by a frontend: when it goes, however it goes, the far end is closed.
#[derive(Debug)]
pub struct Lease(pub Arc<Tunnel>);

impl Drop for Lease {
    fn drop(&mut self) {
        let tunnel = &self.0;
        // Nobody reads any more: what arrives is let go.
        tunnel.inbox.finish(String::new());
        if tunnel.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        tunnel.credit.close();
        if let Some(backend) = tunnel.backend.upgrade() {
            backend.forget(tunnel.id);
            let _ = backend.tell(Message::CloseRequest { id: tunnel.id });
        }
    }
}
