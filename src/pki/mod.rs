//! Names in, PEM out: authorities, leaf certificates, requests, service-account keys and tokens. No files, no sockets.
//!
//! What kubeadm's certificate phase, client-go's `util/cert` and the controller manager's signers do,
//! with ECDSA P-256 everywhere. It issues no other key type and keeps no revocation lists: upstream
//! has none either.

mod authority;
mod complaint;
mod csr;
mod inspect;
mod jwk;
mod pem;
mod resubject;
mod ssh;
mod token;
mod verify;

pub use authority::{Authority, Issued, LeafSpec, self_signed_serving};
pub use csr::{Request, request, request_with_key};
pub use inspect::{Facts, public_key_info, public_key_pin};
pub use jwk::{JwkSet, JwsError};
pub use pem::{certificates, private_key};
pub use ssh::SshKey;
pub use token::{SigningKey, VerifyingKey, claims_unverified};
pub use verify::{ClientRoots, Subject};

/// What can go wrong with names, keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("generate a certificate")]
    Generate(#[source] rcgen::Error),
    #[error("read the authority's certificate or key")]
    Authority(#[source] rcgen::Error),
    #[error("read a certificate request: {0}")]
    Request(String),
    #[error("{0:?} is not a valid DNS name for a certificate")]
    Name(String),
    #[error("read a certificate: {0}")]
    Certificate(String),
    #[error("unknown certificate usage {0:?}")]
    Usage(String),
    #[error("no {0} found in PEM data")]
    Pem(&'static str),
    #[error("the key is not a P-256 key this lab can use")]
    Key,
    #[error("the system gave no random bytes")]
    Random,
    #[error("not a token this lab signs: {0}")]
    Token(&'static str),
    #[error("{0}")]
    Chain(String),
}

/// Seconds since 1970, now.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
