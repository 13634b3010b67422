//! Loops that make pods: ReplicaSet, Deployment, DaemonSet.
//!
//! Left out: StatefulSet, Job and CronJob.

pub mod daemonset;
pub mod deployment;
mod hash;
pub mod ownership;
pub mod pods;
pub mod replicaset;
