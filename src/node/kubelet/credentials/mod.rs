//! Who the kubelet is: its client certificate (TLS bootstrapping, rotation) and its serving certificate.
//!
//! `pkg/kubelet/certificate` and client-go's `util/certificate`: files `kubelet-client-DATE.pem` with a
//! `kubelet-client-current.pem` link, a kubeconfig that names the link, CSR objects for new ones.
//!
//! ```text
//!   kubelet.conf usable? ──yes──────────────────────────────► client ──70-90 % of life──► CSR ─┐
//!          │ no                                                  ▲                            │
//!          └─ bootstrap-kubelet.conf ─► CSR ─► approved, signed ─┘◄──────────────new file─────┘
//! ```

mod bootstrap;
mod condition;
mod reload;
mod request;
mod rotation;
mod serving;
mod store;

pub use bootstrap::client;
pub use condition::Condition;
pub use reload::{Ears, on_change};
pub use rotation::{expired, rotate_client};
pub use serving::{issued, keep_serving, serving};
