//! kube-network-policies: enforces NetworkPolicies on a node, by nftables in the node's forward path.
//!
//! Stands for `sigs.k8s.io/kube-network-policies`, which is what kind's network runs, and like it is a
//! DaemonSet in the node's network: pods, namespaces and policies are watched, and what differs is written
//! in one transaction into a table of its own. Rules outlive the process and are adopted by the next start.
//!
//! What it does not do is part of the lesson: only traffic *through* the node is looked at. Whatever comes
//! from the node itself (probes, the API server's way to a pod by the kubelet) or goes to it (the kubelet's
//! port) passes, and so does a pod with `hostNetwork`.

mod rules;
mod select;

use std::process::ExitCode;

use clap::Parser;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use select::View;

use crate::client::{self, Collection};
use crate::net::go_text;
use crate::sys::nft::{Batch, Family, NftError, Table};

const NAME: &str = "kube-network-policies";

/// The command line.
#[derive(Parser, Debug)]
#[command(name = NAME)]
struct Options {
    /// Overrides the node's name, else taken from MY_NODE_NAME or the host's name
    #[arg(long)]
    hostname_override: Option<String>,
    /// Path to a kubeconfig; without it the pod's service account is used
    #[arg(long)]
    kubeconfig: Option<std::path::PathBuf>,
    /// Remove every rule and end
    #[arg(long)]
    cleanup: bool,
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let options = Options::parse_from(std::iter::once(NAME.to_owned()).chain(argv));
    if options.cleanup {
        Batch::remove(Family::Ip, NAME).commit()?;
        return Ok(ExitCode::SUCCESS);
    }
    let hostname = || nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    let named = options.hostname_override.or_else(|| std::env::var("MY_NODE_NAME").ok());
    let node = named.unwrap_or_else(hostname);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = match &options.kubeconfig {
            Some(path) => client::from_kubeconfig(path)?,
            None => client::in_cluster()?,
        };
        let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            () = enforce(client, &node) => {}
            _ = stop.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// One change of what policies are about.
enum Change {
    Policy(Box<watcher::Event<NetworkPolicy>>),
    Pod(Box<watcher::Event<Pod>>),
    Namespace(Box<watcher::Event<Namespace>>),
    Node(Box<watcher::Event<Node>>),
}

/// Keeps the table in step with the API, for ever.
async fn enforce(client: Client, node: &str) {
    let config = watcher::Config::default;
    let policies = watcher(Api::<NetworkPolicy>::all(client.clone()), config())
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Policy(Box::new(event)));
    let pods = watcher(Api::<Pod>::all(client.clone()), config())
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Pod(Box::new(event)));
    let own = config().fields(&format!("metadata.name={node}"));
    let nodes = watcher(Api::<Node>::all(client.clone()), own)
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Node(Box::new(event)));
    let namespaces = watcher(Api::<Namespace>::all(client), config())
        .backoff(client::Backoff::default())
        .map_ok(|event| Change::Namespace(Box::new(event)));
    let all = stream::select(stream::select(policies, pods), stream::select(namespaces, nodes));
    let mut changes = std::pin::pin!(all.ready_chunks(256));
    let (mut policies, mut pods) = (Collection::<NetworkPolicy>::default(), Collection::<Pod>::default());
    let (mut namespaces, mut nodes) = (Collection::<Namespace>::default(), Collection::<Node>::default());
    let mut written = None::<Table>;
    while let Some(batch) = changes.next().await {
        for change in batch {
            match change {
                Ok(Change::Policy(event)) => policies.apply(*event),
                Ok(Change::Pod(event)) => pods.apply(*event),
                Ok(Change::Namespace(event)) => namespaces.apply(*event),
                Ok(Change::Node(event)) => nodes.apply(*event),
                Err(error) => tracing::warn!(error = %go_text(&error), "the watch was interrupted"),
            }
        }
        // A half-known world would let through, or cut off, what should not be.
        if policies.synced() && pods.synced() && namespaces.synced() && nodes.synced() {
            let view = View::new(node, pods.all(), namespaces.all(), nodes.all().next());
            bring_about(rules::table(&view, policies.all()), &mut written);
        }
    }
}

fn bring_about(table: Table, written: &mut Option<Table>) {
    if written.as_ref() == Some(&table) {
        return;
    }
    let replace = || table.replace(Family::Ip, NAME).commit();
    let outcome: Result<(), NftError> = match written.take() {
        None => replace(),
        Some(old) => table.difference(&old, Family::Ip, NAME).commit().or_else(|error| {
            tracing::warn!(%error, "the table is not as it was left; writing all of it");
            replace()
        }),
    };
    match outcome {
        Ok(()) => *written = Some(table),
        Err(error) => tracing::error!(%error, "could not write the policy table"),
    }
}
