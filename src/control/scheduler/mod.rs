//! kube-scheduler: binds pods to nodes.
//!
//! A pod is looked at the moment its watch event arrives: nodes that cannot take it are filtered out
//! in upstream's order and words, the rest are scored, the best is bound. A pod nobody can take waits
//! until the cluster changes in a way that may help. Nothing is polled.
//!
//! Left out on purpose: devices, several profiles.

pub(in crate::control) mod claims;
mod cluster;
mod filter;
mod neighbours;
mod options;
mod pending;
mod preempt;
mod resources;
mod score;
mod spread;
mod work;

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;
use clap::Parser;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::task::LocalSet;
use tracing::{info, warn};

use crate::api::flags;
use crate::client::{self, Backoff};
use crate::control::component::{self, Working};
use crate::control::leader;
use options::{Options, UNIMPLEMENTED};
use work::Scheduler;

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let (kept, dropped) = flags::sift(argv, UNIMPLEMENTED);
    let options = Options::parse_from(std::iter::once("kube-scheduler".to_owned()).chain(kept));
    dropped.iter().for_each(|flag| warn!(flag, "flag is accepted and has no effect here"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    LocalSet::new().block_on(&runtime, serve(options))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let stop = component::stop_signal().context("listen for signals")?;
    let working = Working::default();
    if options.secure_port != 0 {
        let port = options.port.build(options.secure_port, working.clone(), options.configz())?;
        let stop = stop.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = port.serve(stop).await {
                warn!(%error, "serve the HTTPS port");
            }
        });
    }
    let client: Client = client::from_kubeconfig(&options.kubeconfig)?;
    let (mut leads, term) = leader::stand(client.clone(), &options.leader, "kube-scheduler", &stop);
    let scheduler = Scheduler::new(client.clone());
    let (nodes, pods) = (scheduler.nodes.clone(), scheduler.pods.clone());
    let config = watcher::Config::default;
    tokio::task::spawn_local(nodes.clone().run(Api::all(client.clone()), config(), Backoff::default));
    tokio::task::spawn_local(pods.clone().run(Api::all(client), config(), Backoff::default));
    let work = async {
        nodes.synced().await;
        pods.synced().await;
        info!("all watches are synced");
        working.store(true, Ordering::Relaxed);
        crate::sys::inherit::ready();
        leads.acquired().await;
        scheduler.run().await;
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => info!("asked to stop"),
    }
    // Gives the lease back.
    let _ = term.await;
    Ok(())
}
