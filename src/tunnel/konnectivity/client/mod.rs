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

/// The roads of an egress configuration; without one everything is dialled directly.
pub fn roads(path: Option<&Path>) -> Result<Roads, TunnelError> {
    let configuration = path.map(Configuration::read).transpose()?.unwrap_or_default();
    Ok(Roads { cluster: road(&configuration, "cluster")? })
}

fn road(configuration: &Configuration, name: &str) -> Result<Arc<dyn Dial>, TunnelError> {
    Ok(match configuration.find(name) {
        None => Arc::new(Direct),
        Some((Protocol::Direct, _)) => Arc::new(Direct),
        Some((Protocol::Grpc, Some(Transport::Uds(path)))) => Arc::new(grpc::Tunnels::new(path.clone())),
        Some((Protocol::HttpConnect, Some(Transport::Uds(path)))) => {
            Arc::new(connect::Tunnels::by_socket(path.clone()))
        }
        Some((Protocol::HttpConnect, Some(Transport::Tcp(tcp)))) => Arc::new(connect::Tunnels::by_tcp(tcp)?),
        Some((protocol, _)) => {
            return Err(TunnelError::Configuration(format!("{protocol:?} has no such transport")));
        }
    })
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
