//! Loops that keep pods running: ReplicaSet, ReplicationController, Deployment, DaemonSet, StatefulSet.

pub mod controller;
pub mod daemonset;
pub mod deployment;
mod hash;
pub mod ownership;
pub mod pods;
pub mod replicaset;
mod revisions;
pub mod stateful;
