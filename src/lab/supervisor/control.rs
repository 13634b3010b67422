//! The control socket's server: each connection's requests become events, and its end too.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;

use super::roles::Event;
use crate::lab::protocol::{Reply, Request};
use crate::sys::packet::{Packet, PacketListener, PacketSocket};

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
        let fds: Vec<_> = fd.into_iter().map(std::os::fd::AsFd::as_fd).collect();
        if let Err(error) = self.socket.send(&bytes, &fds) {
            tracing::debug!(%error, "The caller has gone");
        }
    }
}

/// Accepts callers for as long as the lab lives.
pub async fn serve(listener: PacketListener, events: UnboundedSender<Event>) -> io::Result<()> {
    listener.set_nonblocking()?;
    let listener = AsyncFd::new(listener)?;
    for id in 0.. {
        let socket = loop {
            let mut ready = listener.readable().await?;
            if let Ok(accepted) = ready.try_io(|listener| listener.get_ref().accept()) {
                break accepted?;
            }
        };
        // Only the owner (root in here) finds the socket at all; this makes it certain.
        if socket.peer_uid()? == 0 {
            tokio::task::spawn_local(listen(id, Rc::new(socket), events.clone()));
        }
    }
    Ok(())
}

async fn listen(id: u64, socket: Rc<PacketSocket>, events: UnboundedSender<Event>) {
    let caller = Caller { id, socket: socket.clone() };
    let packets = AsyncFd::with_interest(Shared(socket), tokio::io::Interest::READABLE);
    let Ok(packets) = packets else { return };
    while let Ok(Some((bytes, fds))) = next(&packets).await {
        let event = match serde_json::from_slice::<Request>(&bytes) {
            Ok(request) => Event::Asked { request, fds, caller: caller.clone() },
            Err(error) => {
                caller.answer(
                    &Reply::Failed { error: format!("a request that cannot be read: {error}") },
                    None,
                );
                continue;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Left { caller: id });
}

/// A socket several parts of this thread use.
pub struct Shared(pub Rc<PacketSocket>);

impl std::os::fd::AsRawFd for Shared {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// The next packet of a socket.
pub async fn next(socket: &AsyncFd<Shared>) -> io::Result<Option<Packet>> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(packet) = ready.try_io(|socket| socket.get_ref().0.try_receive()) {
            return packet;
        }
    }
}

/// One error as a reply.
pub fn refusal(error: impl std::fmt::Display) -> Reply {
    Reply::Failed { error: error.to_string() }
}
