//! The control plane's roles. They meet the nodes on the wire only.

pub mod apiserver;
mod component;
pub mod controllers;
pub mod scheduler;
pub mod store;
