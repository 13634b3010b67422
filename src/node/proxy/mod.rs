//! kube-proxy: service addresses by nftables, in upstream's nftables layout (table `ip kube-proxy`).
//!
//! Services and EndpointSlices are watched over the API; every change is turned into a whole ruleset by a
//! pure function and written in one transaction. The rules outlive this process: connections in flight
//! and new ones keep working while it is away, and the next start replaces them in one step.
//! `--cleanup` removes them. Left out so far: NodePorts, external addresses and session affinity.

mod config;
mod health;
mod ruleset;
mod table;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::process::ExitCode;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};

use config::Config;
use health::Health;
use ruleset::Ruleset;

use crate::client;
use crate::net::{NetError, go_text};
use crate::sys::inherit;
use crate::sys::nft::NftError;

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
    let options = config::parse(argv);
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
    let health = Health::default();
    health::serve(&config, health.clone()).await?;
    let kube = client::from_kubeconfig(&config.kubeconfig)?;
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        outcome = keep_in_step(&config, kube, &health) => outcome,
        _ = stop.recv() => Ok(()),
    }
}

/// One change to what the rules are made from.
enum Change {
    Service(Box<watcher::Event<Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
}

/// What the API says now.
#[derive(Default)]
struct Observed {
    services: Collection<Service>,
    slices: Collection<EndpointSlice>,
}

/// One kind's objects by namespace and name; a relist is gathered aside and then replaces them.
struct Collection<K> {
    objects: HashMap<(String, String), K>,
    relist: Option<HashMap<(String, String), K>>,
    synced: bool,
}

impl<K> Default for Collection<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), relist: None, synced: false }
    }
}

impl<K: Resource> Collection<K> {
    fn apply(&mut self, event: watcher::Event<K>) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            watcher::Event::Init => self.relist = Some(HashMap::new()),
            watcher::Event::InitApply(object) => {
                self.relist.get_or_insert_default().insert(key(&object), object);
            }
            watcher::Event::InitDone => {
                self.objects = self.relist.take().unwrap_or_default();
                self.synced = true;
            }
            watcher::Event::Apply(object) => {
                self.objects.insert(key(&object), object);
            }
            watcher::Event::Delete(object) => {
                self.objects.remove(&key(&object));
            }
        }
    }
}

/// Watches, and rewrites the table whenever what it should hold changed.
async fn keep_in_step(config: &Config, kube: kube::Client, health: &Health) -> anyhow::Result<()> {
    let which = watcher::Config::default()
        .labels("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name");
    let services = watcher(Api::<Service>::all(kube.clone()), which.clone())
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Service(Box::new(event)));
    let slices = watcher(Api::<EndpointSlice>::all(kube), which)
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Slice(Box::new(event)));
    // What arrives together is written together.
    let mut changes = std::pin::pin!(futures_util::stream::select(services, slices).ready_chunks(256));
    let (mut observed, mut written) = (Observed::default(), None::<Ruleset>);
    while let Some(batch) = changes.next().await {
        for change in batch {
            match change {
                Ok(Change::Service(event)) => observed.services.apply(*event),
                Ok(Change::Slice(event)) => observed.slices.apply(*event),
                Err(error) => tracing::warn!(error = %go_text(&error), "the watch was interrupted"),
            }
        }
        // A half-known world would drop rules that a predecessor left and that are still right.
        if !(observed.services.synced && observed.slices.synced) {
            continue;
        }
        let wanted =
            Ruleset::new(config, observed.services.objects.values(), observed.slices.objects.values());
        if written.as_ref() != Some(&wanted) {
            match table::write(&wanted) {
                Ok(()) => written = Some(wanted),
                Err(error) => {
                    tracing::error!(error = %error, "could not write the service table");
                    continue;
                }
            }
        }
        health.updated();
        inherit::ready();
    }
    Ok(())
}
