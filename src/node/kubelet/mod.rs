//! kubelet: makes one node's pods what the API says they should be.
//!
//! `pkg/kubelet` in small: certificates by TLS bootstrapping, the Node and its lease, a level-triggered
//! loop a pod, and the HTTPS API of :10250. Pods are held by shims, so this process may die at any time.
//! Left out on purpose: static pods, eviction, device and topology managers, image garbage collection.

mod config;
mod credentials;
mod flags;
mod machine;
mod node;
mod pods;
pub(super) mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::net::go_text;
use crate::node::shim::{self, Directories, Runtime};

/// Why the kubelet cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("parse {path}")]
    ParseConfig { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("invalid argument {1:?} for \"--{0}\" flag")]
    Flag(&'static str, String),
    #[error("unknown authorization mode {0}")]
    AuthorizationMode(String),
    #[error("cannot set feature gate {0} to {no}, feature is locked to {1}", no = !.1)]
    LockedGate(&'static str, bool),
    #[error("no authentication method configured")]
    NoAuthentication,
    #[error("no kubeconfig given: this kubelet has no standalone mode")]
    NoKubeconfig,
    #[error("certificate signing request is {verb}, reason: {reason}, message: {message}")]
    RequestRefused { verb: &'static str, reason: String, message: String },
    #[error("The currently active client certificate has expired and the server is responsive, exiting.")]
    Expired,
    #[error("timed out waiting for the certificate signing request")]
    RequestUnanswered,
    #[error(transparent)]
    Client(#[from] crate::client::ClientError),
    #[error(transparent)]
    Net(#[from] crate::net::NetError),
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let (argv, ignored) = crate::api::flags::sift(argv, flags::UNIMPLEMENTED);
    let words = argv.clone();
    let flags = match flags::Flags::try_parse_from(std::iter::once("kubelet".to_owned()).chain(argv)) {
        Ok(flags) => flags::Flags { words, ..flags },
        Err(wrong) => {
            wrong.print()?;
            return Ok(ExitCode::from(u8::try_from(wrong.exit_code()).unwrap_or(2)));
        }
    };
    // A process that is gone must not take the kubelet along that writes to it.
    let hostname = nix::unistd::gethostname()?;
    let config = config::Config::read(flags, &hostname.to_string_lossy())?;
    for flag in ignored {
        warn!(flag, "This flag has no effect in this kubelet");
    }
    for field in &config.ignored {
        warn!(field, "This configuration field has no effect in this kubelet");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: config::Config) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stop = CancellationToken::new();
    tokio::select! {
        _ = terminate.recv() => {
            info!("Received SIGTERM, shutting down");
            stop.cancel();
            // Answers under way get a moment; pods are the shims' and stay.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Ok(())
        }
        ended = work(config, stop.clone()) => ended,
    }
}

async fn work(config: config::Config, stop: CancellationToken) -> anyhow::Result<()> {
    tracing::info!(enforced_by = %shim::support(), "Container limits");
    let runtime = Runtime::new(Directories::default());
    let pods = pods::Pods::default();
    let cert = credentials::serving(&config)?;
    let client = credentials::client(&config).await?;
    let config = Arc::new(config);
    let machine = Arc::new(machine::Machine::read(&config.root_dir));
    let (me, node) = node::register(Arc::clone(&config), machine, client.clone()).await?;
    tokio::spawn(node::renew(client.clone(), node.borrow().clone()));
    let condition = credentials::Condition::default();
    if config.rotate_certificates {
        let (config, client) = (Arc::clone(&config), client.clone());
        tokio::spawn(credentials::rotate_client(config, client, condition.clone()));
    }
    let (mine, asking) = (Arc::clone(&config), client.clone());
    tokio::spawn(credentials::keep_serving(mine, asking, me.address, cert.clone(), condition.clone()));
    tokio::spawn(node::report(me.clone(), node));
    tokio::spawn(pods::rotate_logs(Arc::clone(&config), runtime.clone()));
    let asked = cert.clone();
    let over = credentials::expired(Arc::clone(&config), client.clone());
    let door =
        server::Kubelet::new(config, Arc::clone(&me.machine), pods.clone(), runtime.clone(), condition);
    server::serve(door, client, cert, stop).await?;
    tokio::spawn(async move {
        credentials::issued(&asked).await;
        crate::sys::inherit::ready();
    });
    tokio::select! {
        ended = pods::run(me, runtime, pods) => ended?,
        why = over => return Err(why.into()),
    }
    Ok(())
}

/// An API error in upstream's words: the server's message, or why there was no answer.
fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 401 => "Unauthorized".into(),
        kube::Error::Api(status) => status.message.clone(),
        other => go_text(other),
    }
}
