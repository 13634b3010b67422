//! End to end: the binary as a person runs it, stock kubectl against it, real kills.
//!
//! Every lab a test starts has directories of its own and is gone when the test ends.
//! `MINILAB_BIN` runs another build of the binary; `MINILAB_KEEP=failure` leaves a failed test's lab up
//! and prints how to enter it; `MINILAB_SOAK=1` runs counted loops in full instead of at a twentieth.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

mod accounts;
mod attacks;
mod audit;
mod by_hand;
mod certificates;
mod clients;
mod course;
mod extensions;
mod forged;
mod front_door;
mod hostile;
mod hosts;
mod images;
mod inside;
mod join;
mod kills;
mod kinds;
mod kit;
mod kubectl;
mod kubelet;
mod leftovers;
mod limits;
mod machine;
mod machinery;
mod manifests;
mod node_files;
mod pod_life;
mod pods;
mod power;
mod probes;
mod proxy;
mod proxy_wire;
mod roles;
mod service_kinds;
mod services;
mod ssh;
mod streams;
mod switch;
mod tour;
mod tunnel_task;
mod tunnels;
mod webhooks;
mod wire;
