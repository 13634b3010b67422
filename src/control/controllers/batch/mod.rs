//! Work that ends: Jobs, what makes them by the clock, and what clears them away.

pub mod cron;
pub mod job;
pub mod ttl;
