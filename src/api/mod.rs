//! What Kubernetes' API says, without any I/O: paths, `Status`, selectors, patches, quantities, flags.

pub mod flags;
pub mod status;
