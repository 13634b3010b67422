//! What Kubernetes' API says, without any I/O: paths, `Status`, selectors, patches, quantities, flags.

pub mod flags;
pub mod go_duration;
pub mod status;
pub mod taints;
