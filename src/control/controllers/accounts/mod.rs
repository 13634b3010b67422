//! Loops that give namespaces what pods need to reach the API server, joining nodes their proof, and roles
//! the rules they gather.

pub mod aggregation;
pub mod cleaner;
pub mod default;
pub mod legacy;
pub mod root_ca;
pub mod signer;
pub mod tokens;
