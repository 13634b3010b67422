//! Listeners and what every accepted or dialled socket of ours has.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::NetError;

/// Listens on an address of this network namespace.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, NetError> {
    let failed = |source| NetError::Bind { address: address.to_string(), source };
    TcpListener::bind(address).await.map_err(failed)
}

/// A datagram socket at an address of this network namespace.
pub async fn bind_udp(address: SocketAddr) -> Result<UdpSocket, NetError> {
    let failed = |source| NetError::Bind { address: address.to_string(), source };
    UdpSocket::bind(address).await.map_err(failed)
}

/// Takes over a listener made elsewhere; its backlog, with whoever waits in it, comes along.
pub fn inherit(listener: StdListener) -> Result<TcpListener, NetError> {
    listener.set_nonblocking(true).map_err(NetError::Inherit)?;
    TcpListener::from_std(listener).map_err(NetError::Inherit)
}

/// No Nagle (an answer never waits for an acknowledgement), and keepalive probes.
///
/// No `TCP_USER_TIMEOUT`: it also ends connections whose peer lives and only does not read for a while
/// (`kubectl logs | less`). Where something was sent and nothing comes back, the hosts' `tcp_retries2` ends it.
pub fn tune(stream: &TcpStream) {
    // A socket whose peer has already gone refuses these; its next read says so.
    let _ = stream.set_nodelay(true);
    let fd = stream.as_fd();
    let _ = setsockopt(&fd, sockopt::KeepAlive, &true);
    let _ = setsockopt(&fd, sockopt::TcpKeepIdle, &5);
    let _ = setsockopt(&fd, sockopt::TcpKeepInterval, &1);
    let _ = setsockopt(&fd, sockopt::TcpKeepCount, &1);
}
