//! How the kubelet's certificates are, as its metrics tell it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::config::Config;
use super::store::Store;

/// Shared by whoever renews and whoever is asked. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Condition(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    client_errors: AtomicU64,
    serving_errors: AtomicU64,
    /// Seconds since 1970; 0 while there is none.
    serving_end: AtomicU64,
}

impl Condition {
    pub fn client_failed(&self) {
        self.0.client_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub fn serving_failed(&self) {
        self.0.serving_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The serving certificate that came by request ends then.
    pub fn serving_until(&self, end: u64) {
        self.0.serving_end.store(end, Ordering::Relaxed);
    }

    pub fn client_errors(&self) -> u64 {
        self.0.client_errors.load(Ordering::Relaxed)
    }

    pub fn serving_errors(&self) -> u64 {
        self.0.serving_errors.load(Ordering::Relaxed)
    }

    pub fn serving_end(&self) -> Option<u64> {
        Some(self.0.serving_end.load(Ordering::Relaxed)).filter(|end| *end > 0)
    }

    /// Read from disk: who rotates it is not asked.
    pub fn client_end(&self, config: &Config) -> Option<u64> {
        Store::new(&config.cert_dir, "kubelet-client").facts().map(|facts| facts.not_after)
    }
}
