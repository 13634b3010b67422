//! kube-proxy: service addresses by nftables, in upstream's nftables layout (table `ip kube-proxy`).
//!
//! Services, EndpointSlices and the own Node are watched over the API; every change is turned into a
//! whole table by pure functions, and what differs from the last one is written in one transaction. The
//! rules outlive this process: connections in flight and new ones keep working while it is away, and the
//! next start replaces them in one step. `--cleanup` removes them. Left out on purpose: the other proxy
//! modes, IPv6.

mod config;
mod health;
mod metrics;
mod ruleset;
mod service_health;
mod stale;
mod table;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};

use config::Config;
use health::Health;
use metrics::Metrics;
use ruleset::{Ruleset, World};
use service_health::ServiceHealth;

use crate::client::{self, Collection};
use crate::net::{NetError, go_text};
use crate::sys::inherit;
use crate::sys::nft::{NftError, Table};

/// What keeps a proxy from running.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("read the configuration {path}")]
    ReadConfig { path: String, source: std::io::Error },
    #[error("understand the configuration {path}")]
    ParseConfig { path: String, source: serde_yaml_ng::Error },
    #[error("serve health")]
    Listen(#[from] NetError),
    #[error("write the service table")]
    Write(#[from] NftError),
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let options = match config::parse(argv) {
        Ok(options) => options,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(u8::from(error.use_stderr())));
        }
    };
    if options.version {
        println!("Kubernetes v1.36.2");
        return Ok(ExitCode::SUCCESS);
    }
    if options.cleanup {
        table::remove()?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(&options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(proxy(config))?;
    Ok(ExitCode::SUCCESS)
}

/// Serves until it is told to stop; the rules stay.
async fn proxy(config: Config) -> anyhow::Result<()> {
    let (health, metrics) = (Health::default(), Metrics::default());
    health::serve(&config, health.clone(), metrics.clone()).await?;
    let kube = client::from_kubeconfig(&config.kubeconfig)?;
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        outcome = keep_in_step(&config, kube, &health, &metrics) => outcome,
        _ = stop.recv() => Ok(()),
    }
}

/// One change to what the rules are made from.
enum Change {
    Service(Box<watcher::Event<Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
    Node(Box<watcher::Event<Node>>),
}

/// What the API says now.
#[derive(Default)]
struct Observed {
    services: Collection<Service>,
    slices: Collection<EndpointSlice>,
    nodes: Collection<Node>,
}

impl Observed {
    fn apply(&mut self, change: Change, metrics: &Metrics) {
        match change {
            Change::Service(event) => {
                if told(&event).is_some() {
                    metrics.service_changed();
                }
                self.services.apply(*event);
            }
            Change::Slice(event) => {
                if let Some((slice, there)) = told(&event) {
                    let notes = slice.metadata.annotations.as_ref().filter(|_| there);
                    metrics.endpoints_changed(notes.and_then(|notes| notes.get(TRIGGER)).map(String::as_str));
                }
                self.slices.apply(*event);
            }
            Change::Node(event) => self.nodes.apply(*event),
        }
    }

    /// A half-known world would drop rules that a predecessor left and that are still right.
    fn synced(&self) -> bool {
        self.services.synced() && self.slices.synced() && self.nodes.synced()
    }

    fn ruleset(&self, config: &Config) -> Ruleset {
        let mut services: Vec<&Service> = self.services.all().collect();
        // Of two that claim one external address the older one has it.
        services.sort_by_key(|service| (&service.metadata.creation_timestamp, &service.metadata.uid));
        let slices = self.slices.all().collect();
        Ruleset::new(config, &World { services, slices, node: self.nodes.all().next() })
    }
}

/// When the change behind a slice began.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The object an event tells of, and whether it is still there.
fn told<K>(event: &watcher::Event<K>) -> Option<(&K, bool)> {
    match event {
        watcher::Event::InitApply(object) | watcher::Event::Apply(object) => Some((object, true)),
        watcher::Event::Delete(object) => Some((object, false)),
        watcher::Event::Init | watcher::Event::InitDone => None,
    }
}

/// What the kernel holds, and what it was made from.
struct Written {
    ruleset: Ruleset,
    table: Table,
}

/// Watches, and rewrites what differs whenever what the table should hold changed.
async fn keep_in_step(
    config: &Config,
    kube: kube::Client,
    health: &Health,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let which = watcher::Config::default()
        .labels("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name");
    let services = watcher(Api::<Service>::all(kube.clone()), which.clone())
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Service(Box::new(event)));
    let slices = watcher(Api::<EndpointSlice>::all(kube.clone()), which)
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Slice(Box::new(event)));
    let own = watcher::Config::default().fields(&format!("metadata.name={}", config.node));
    let node = watcher(Api::<Node>::all(kube), own)
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Node(Box::new(event)));
    let all = futures_util::stream::select(futures_util::stream::select(services, slices), node);
    // What arrives together is written together.
    let mut changes = std::pin::pin!(all.ready_chunks(256));
    let mut ports = ServiceHealth::new(health.clone());
    let (mut observed, mut written) = (Observed::default(), None::<Written>);
    while let Some(batch) = changes.next().await {
        for change in batch {
            match change {
                Ok(change) => observed.apply(change, metrics),
                Err(error) => tracing::warn!(error = %go_text(&error), "the watch was interrupted"),
            }
        }
        if !observed.synced() {
            continue;
        }
        let started = std::time::Instant::now();
        health.node(observed.nodes.all().next());
        health.queued();
        metrics.queued();
        let ruleset = observed.ruleset(config);
        let asked = ruleset.health.clone();
        match bring_about(started, ruleset, &mut written) {
            Some(all) => {
                health.updated();
                inherit::ready();
                if let Some(written) = &written {
                    metrics.synced(&written.ruleset, all, started.elapsed());
                }
            }
            None => metrics.failed(),
        }
        ports.sync(&asked).await;
    }
    Ok(())
}

/// Writes what a ruleset asks for and says whether that was the whole table; nothing when the kernel does not
/// take it.
fn bring_about(started: std::time::Instant, ruleset: Ruleset, written: &mut Option<Written>) -> Option<bool> {
    if written.as_ref().is_some_and(|written| written.ruleset == ruleset) {
        return Some(false);
    }
    let table = table::of(&ruleset);
    let before = written.take();
    let outcome = match &before {
        None => table::replace(&table).map(|kernel| (kernel, true)),
        Some(before) => table::change(&before.table, &table).map(|kernel| (kernel, false)).or_else(|error| {
            tracing::warn!(%error, "the table is not as it was left; writing all of it");
            table::replace(&table).map(|kernel| (kernel, true))
        }),
    };
    let (kernel, all) = match outcome {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(error = %error, "could not write the service table");
            return None;
        }
    };
    let nothing = Table::default();
    let changed = table.distance(before.as_ref().filter(|_| !all).map_or(&nothing, |before| &before.table));
    let (took, kernel) = (started.elapsed().as_micros(), kernel.as_micros());
    tracing::info!(changed, tookUs = took, kernelUs = kernel, "SyncProxyRules complete");
    stale::forget(before.as_ref().map(|before| &before.ruleset), &ruleset);
    *written = Some(Written { ruleset, table });
    Some(all)
}
