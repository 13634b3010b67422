//! coredns: the cluster's DNS, run by a Deployment in kube-system behind 10.96.0.10.
//!
//! The binary under CoreDNS' name: it reads CoreDNS' Corefile and answers the names of Services, Endpoints
//! and pods with CoreDNS' codes, flags and times. Only the plugins a cluster's Corefile has are here; the
//! wire format is simple-dns'. It talks to the API with its pod's service account, as every pod would.

mod answer;
mod connections;
mod corefile;
mod edns;
mod server;
mod zone;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};

use corefile::{Block, Pods};
use server::Shared;
use zone::Index;

use crate::client::{self, Collection};
use crate::net::{self, go_text};

/// How often the Corefile is looked at again; upstream's reload has 30 seconds.
const RELOAD: Duration = Duration::from_secs(30);

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "coredns", disable_version_flag = true)]
struct Options {
    /// Corefile to load
    #[arg(long, default_value = "Corefile")]
    conf: PathBuf,
    /// Default port of server blocks that name none; ports in the Corefile win
    #[arg(long = "dns.port")]
    port: Option<u16>,
    /// Show version
    #[arg(long)]
    version: bool,
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    // Go's flags have one dash.
    let long = |word: String| match word.strip_prefix('-') {
        Some(rest) if !rest.starts_with('-') && rest.len() > 1 => format!("--{rest}"),
        _ => word,
    };
    let options =
        Options::parse_from(std::iter::once("coredns".to_owned()).chain(argv.into_iter().map(long)));
    if options.version {
        println!("{}", version());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))?;
    Ok(ExitCode::SUCCESS)
}

/// As the real one prints it, but for the compiler.
fn version() -> String {
    format!("CoreDNS-1.14.2\nlinux/{}, minilab", std::env::consts::ARCH)
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let blocks = load(&options)?;
    let lameduck =
        blocks.iter().filter_map(|block| block.health.as_ref()).map(|health| health.lameduck).max();
    let shared = Shared::new(blocks.clone());
    let mut stop = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    server::ports(&shared).await?;
    let mut bound: Vec<u16> = blocks.iter().map(|block| block.port).collect();
    bound.sort_unstable();
    bound.dedup();
    for port in bound {
        let address = SocketAddr::from(([0, 0, 0, 0], port));
        tokio::spawn(server::udp(shared.clone(), net::bind_udp(address).await?));
        tokio::spawn(server::tcp(shared.clone(), net::bind(address).await?));
    }
    blocks.iter().for_each(|block| block.zones.iter().for_each(|zone| println!("{zone}.:{}", block.port)));
    println!("{}", version());
    tokio::spawn(reload(options, shared.clone()));
    let plugins = || blocks.iter().filter_map(|block| block.kubernetes.as_ref());
    if plugins().next().is_some() {
        let pods = plugins().any(|plugin| plugin.pods == Pods::Verified);
        let client = client::in_cluster().context("use the pod's service account")?;
        tokio::spawn(follow(client, shared.clone(), pods));
    } else {
        shared.learn(Index::default());
    }
    stop.recv().await;
    println!("[INFO] SIGTERM: Shutting down servers then terminating");
    // Whoever still sends here is answered until the endpoints have told everybody.
    tokio::time::sleep(lameduck.unwrap_or_default()).await;
    Ok(())
}

fn load(options: &Options) -> anyhow::Result<Vec<Block>> {
    let path = options.conf.display().to_string();
    let text = std::fs::read_to_string(&options.conf).with_context(|| format!("read {path}"))?;
    let mut blocks = corefile::parse(&path, &text)?;
    if let Some(port) = options.port {
        blocks.iter_mut().filter(|block| block.port == 53).for_each(|block| block.port = port);
    }
    Ok(blocks)
}

/// Takes in a changed Corefile; one that cannot be used changes nothing.
async fn reload(options: Options, shared: Arc<Shared>) {
    let read = || std::fs::read_to_string(&options.conf).unwrap_or_default();
    let mut known = read();
    loop {
        tokio::time::sleep(RELOAD).await;
        let now = read();
        if now == known {
            continue;
        }
        match load(&options) {
            Ok(blocks) => {
                shared.configure(blocks);
                println!("[INFO] Reloading complete");
            }
            Err(error) => println!("[ERROR] Restart failed: {error:#}"),
        }
        known = now;
    }
}

/// One change of what names lead to.
enum Change {
    Namespace(Box<watcher::Event<Namespace>>),
    Service(Box<watcher::Event<Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
    Pod(Box<watcher::Event<Pod>>),
}

fn watch<K>(
    client: &Client,
    change: fn(Box<watcher::Event<K>>) -> Change,
) -> impl Stream<Item = watcher::Result<Change>>
where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default())
        .backoff(client::Backoff::default())
        .map_ok(move |event| change(Box::new(event)))
}

/// Keeps the answers in step with the API.
async fn follow(client: Client, shared: Arc<Shared>, with_pods: bool) {
    let pods = match with_pods {
        true => watch::<Pod>(&client, Change::Pod).left_stream(),
        false => stream::pending().right_stream(),
    };
    let names = stream::select(watch(&client, Change::Namespace), pods);
    let endpoints = stream::select(watch(&client, Change::Service), watch(&client, Change::Slice));
    let mut changes = std::pin::pin!(stream::select(names, endpoints).ready_chunks(256));
    let (mut namespaces, mut services) =
        (Collection::<Namespace>::default(), Collection::<Service>::default());
    let (mut slices, mut pods) = (Collection::<EndpointSlice>::default(), Collection::<Pod>::default());
    while let Some(batch) = changes.next().await {
        for change in batch {
            match change {
                Ok(Change::Namespace(event)) => namespaces.apply(*event),
                Ok(Change::Service(event)) => services.apply(*event),
                Ok(Change::Slice(event)) => slices.apply(*event),
                Ok(Change::Pod(event)) => pods.apply(*event),
                Err(error) => println!("[ERROR] plugin/kubernetes: {}", go_text(&error)),
            }
        }
        if namespaces.synced() && services.synced() && slices.synced() && (pods.synced() || !with_pods) {
            shared.learn(Index::new(namespaces.all(), services.all(), slices.all(), pods.all()));
        }
    }
}
