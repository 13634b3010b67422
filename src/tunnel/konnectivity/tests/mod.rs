//! Both ends against each other, and each against a peer that behaves as upstream's specification says.

mod agent;
mod bytes;
mod doors;
mod kit;
mod pairs;
mod server;
