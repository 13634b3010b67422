//! Every socket and every TLS decision: listeners, dialling, verification choices by name.
//!
//! No other module opens a TCP socket of the cluster or decides whom to trust. What accepts anything
//! lives in `danger` and is named so where it is used.

mod danger;
mod dial;
mod ends;
mod go_text;
mod gulps;
mod hello;
mod keylog;
mod listen;
mod records;
mod serve;
mod tls;
mod unix;

pub use dial::{BoxStream, Dial, DialError, Dialing, Direct, Egress, Given, RoadSigns, Roads, TlsDialer};
pub use go_text::{go_text, io_text};
pub use hello::client_hello;
pub use keylog::KeyListener;
pub use listen::{bind, bind_udp, inherit, tune};
pub use records::Records;
pub use serve::{Peer, Server};
pub use tls::{Clients, Identity, Protocols, ServingCert, Verify, client_config};
pub use unix::{bind_unix, connect_unix};

/// What can go wrong before a connection exists.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("bind {address}")]
    Bind { address: String, source: std::io::Error },
    #[error("use an inherited listener")]
    Inherit(#[source] std::io::Error),
    #[error("load a certificate or key")]
    Material(#[from] crate::pki::PkiError),
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}
