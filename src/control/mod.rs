//! The control plane's roles. They meet the nodes on the wire only.

pub mod apiserver;
pub mod approver;
mod component;
pub mod controllers;
mod leader;
pub mod scheduler;
pub mod store;
mod trust;
