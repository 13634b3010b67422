//! The control socket's server: each connection's requests become events, and its end too.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use tokio::sync::mpsc::UnboundedSender;

use super::events::Event;
use crate::lab::protocol::{Reply, Request};
use crate::sys::packet::{PacketListener, PacketSocket};
use crate::sys::ready::Readable;

/// The uid of whoever has none in here (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65534;

/// Somebody who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    pub id: u64,
    socket: Rc<PacketSocket>,
}

impl Caller {
    /// Answers; one who has gone does not mind.
    pub fn answer(&self, reply: &Reply, fd: Option<&OwnedFd>) {
        let bytes = serde_json::to_vec(reply).expect("a reply has only string keys");
        let fds: Vec<_> = fd.into_iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.socket.send(&bytes, &fds) {
            tracing::debug!(%error, "The caller has gone");
        }
    }
}

/// Accepts callers for as long as the lab lives.
pub async fn serve(listener: PacketListener, events: UnboundedSender<Event>) -> io::Result<()> {
    listener.set_nonblocking()?;
    let ready = Readable::of(&listener)?;
    for id in 0.. {
        let socket = ready.until(|| listener.accept()).await?;
        // Only who may trace this process finds the socket at all: the owner, root in here, and the machine's
        // root, whom a map that belongs to somebody else shows as nobody.
        if matches!(socket.peer_uid()?, 0 | NOBODY) {
            tokio::task::spawn_local(listen(id, Rc::new(socket), events.clone()));
        }
    }
    Ok(())
}

async fn listen(id: u64, socket: Rc<PacketSocket>, events: UnboundedSender<Event>) {
    let caller = Caller { id, socket: socket.clone() };
    let Ok(ready) = Readable::of(&*socket) else { return };
    while let Ok(Some((bytes, fds))) = ready.until(|| socket.try_receive()).await {
        let event = match serde_json::from_slice::<Request>(&bytes) {
            Ok(request) => Event::Asked { request, fds, caller: caller.clone() },
            Err(error) => {
                caller.answer(&refusal(format!("a request that cannot be read: {error}")), None);
                continue;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Left { caller: id });
}

/// One error as a reply.
pub fn refusal(error: impl std::fmt::Display) -> Reply {
    Reply::Failed { error: error.to_string() }
}
