//! Loops that give namespaces what pods need to reach the API server, and joining nodes their proof.

pub mod cleaner;
pub mod default;
pub mod root_ca;
pub mod signer;
