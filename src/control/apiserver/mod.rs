//! kube-apiserver: the hub. The only role that opens the store.
//!
//! A request's way: TLS → request info → authentication → audit → authorization → admission → handler → store.

mod accept;
mod addresses;
pub mod admission;
mod aggregate;
mod apply;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod call;
mod callee;
mod cel;
mod chain;
mod components;
mod custom;
mod discovery;
mod encode;
mod fairness;
mod features;
mod flags;
mod handlers;
mod health;
mod identity;
mod impersonate;
pub mod kubelet;
mod lists;
mod lookup;
mod masters;
mod messages;
mod metrics_api;
mod openapi;
mod proxy;
pub mod registry;
mod remote;
pub mod request;
pub mod respond;
pub mod reviews;
mod server;
pub mod serving;
mod shape;
mod subresources;
mod system;
pub mod table;
mod tunneler;
pub mod user;
pub mod validation;
mod versions;
mod watched;
mod wire;

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use flags::Flags;
use server::Prepared;

/// Makes the roads to the cluster of what the command line says of them: the tunnels' side, which this server
/// does not know.
pub type RoadBuilder = fn(&crate::net::RoadSigns) -> anyhow::Result<crate::net::Roads>;

/// The role's entry point.
pub fn run(argv: Vec<String>, roads: RoadBuilder) -> anyhow::Result<ExitCode> {
    let flags = match Flags::read(argv) {
        Ok(flags) => flags,
        Err(error) => {
            error.print().context("print usage")?;
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    // Several threads, so that one heavy request never stalls a kubelet's lease.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let told = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
        });
        let roads = roads(&flags.road_signs()).context("set up the roads to the cluster")?;
        Prepared::build(flags, roads).await?.serve(stop).await.context("serve the API")
    })?;
    Ok(ExitCode::SUCCESS)
}
