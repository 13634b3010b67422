//! The API server's half: which road leads where (`EgressSelectorConfiguration`), and dialling through a
//! Konnectivity server by either of its frontends (`k8s.io/apiserver/pkg/server/egressselector`).

mod config;
mod connect;
mod grpc;

use std::path::Path;
use std::sync::Arc;

use config::{Configuration, Protocol, Transport};

use super::TunnelError;
use crate::net::{Dial, DialError, Direct, Roads};

/// Lays the roads that an egress configuration names, in the place of those there are.
pub fn lay(path: Option<&Path>, roads: &mut Roads) -> Result<(), TunnelError> {
    let configuration = path.map(Configuration::read).transpose()?.unwrap_or_default();
    for (name, place) in [("cluster", &mut roads.cluster), ("controlplane", &mut roads.control_plane)] {
        if let Some(road) = road(&configuration, name)? {
            *place = road;
        }
    }
    Ok(())
}

fn road(configuration: &Configuration, name: &str) -> Result<Option<Arc<dyn Dial>>, TunnelError> {
    let Some(connection) = configuration.find(name) else { return Ok(None) };
    Ok(Some(match connection {
        (Protocol::Direct, _) => Arc::new(Direct),
        (Protocol::Grpc, Some(Transport::Uds(path))) => Arc::new(grpc::Tunnels::new(path.clone())),
        (Protocol::HttpConnect, Some(Transport::Uds(path))) => {
            Arc::new(connect::Tunnels::by_socket(path.clone()))
        }
        (Protocol::HttpConnect, Some(Transport::Tcp(tcp))) => Arc::new(connect::Tunnels::by_tcp(tcp)?),
        (protocol, _) => {
            return Err(TunnelError::Configuration(format!("{protocol:?} has no such transport")));
        }
    }))
}

/// An address as Go's `net.JoinHostPort` writes it.
fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Why a socket's other end could not be reached, as Go says it.
fn unreached(socket: &Path, error: &std::io::Error) -> DialError {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "connect: no such file or directory".to_owned(),
        _ => crate::net::io_text(error),
    };
    DialError::Tunnel(format!("dial unix {}: {why}", socket.display()))
}
