//! csr-approver: approves kubelets' serving certificates, which kube-controller-manager never does.
//!
//! Upstream leaves this to a person or to a controller of one's own; this is such a controller. By whose word
//! it knows a node's addresses is its `--approve`: nobody's (`any`), the Node object's, which the node itself
//! writes (`node-object`), or an inventory file's, which it cannot. What it does not approve stays pending,
//! with a line in its log and an event that say why.

mod judge;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use futures_util::StreamExt;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tracing::{info, warn};

use super::component;
use crate::client::events::{Kind, Recorder, reference};
use crate::client::{self, Backoff};
use crate::net::go_text;
use judge::{Inventory, Pending, SIGNER, Verdict};

/// Attempts to write an approval before the request is left to the next look at it.
const ATTEMPTS: u32 = 5;

#[derive(Debug, Parser)]
#[command(
    name = "csr-approver",
    about = "Approves kubelet serving certificates",
    disable_version_flag = true
)]
struct Options {
    /// Who this approver is and where the API server is
    #[arg(long, value_name = "PATH")]
    kubeconfig: PathBuf,
    /// By whose word a node's addresses are known
    #[arg(long, value_enum)]
    approve: By,
    /// With `--approve=inventory`: names and addresses by node, in YAML
    #[arg(long, value_name = "PATH", required_if_eq("approve", "inventory"))]
    inventory: Option<PathBuf>,
}

/// Whom the approver believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Every request is approved.
    ///
    /// # Warning
    ///
    /// Any node gets a certificate for any address: what verifies kubelets verifies nothing.
    Any,
    /// The Node object's `status.addresses`.
    ///
    /// # Warning
    ///
    /// A node writes these itself, so it gets a certificate for a sibling's address by claiming it first.
    NodeObject,
    /// A file no node can write.
    Inventory,
}

/// Why the approver cannot work.
#[derive(Debug, thiserror::Error)]
enum ApproverError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no inventory: names and addresses by node")]
    Parse { path: PathBuf, source: serde_yaml_ng::Error },
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let options = Options::parse_from(std::iter::once("csr-approver".to_owned()).chain(argv));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = component::stop_signal()?;
        let approver = Approver::new(&options)?;
        tokio::select! {
            () = approver.work() => {}
            () = stop.cancelled() => info!("asked to stop"),
        }
        Ok(ExitCode::SUCCESS)
    })
}

struct Approver {
    by: By,
    inventory: Option<PathBuf>,
    client: Client,
    events: Recorder,
}

impl Approver {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let inventory = options.inventory.clone();
        // A wrong file is better told at the start than at the first request.
        inventory.as_deref().map(read).transpose()?;
        let client = client::from_kubeconfig(&options.kubeconfig)?;
        let events = Recorder::new(client.clone(), "csr-approver", "");
        Ok(Self { by: options.approve, inventory, client, events })
    }

    /// Looks at every request, now and as they come. For ever.
    async fn work(&self) {
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let mine = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let mut events = std::pin::pin!(watcher(api, mine).backoff(Backoff::new()));
        let mut said = String::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(csr) | Event::InitApply(csr)) => self.look(csr).await,
                Ok(Event::InitDone) => crate::sys::inherit::ready(),
                Ok(Event::Init | Event::Delete(_)) => {}
                Err(error) => {
                    let text = in_short(&error);
                    if text != said {
                        warn!(error = text, "Watching certificate signing requests failed");
                        said = text;
                    }
                }
            }
        }
    }

    async fn look(&self, csr: CertificateSigningRequest) {
        let Some(pending) = Pending::of(&csr) else { return };
        let name = csr.metadata.name.clone().unwrap_or_default();
        match self.verdict(&pending).await {
            Verdict::Approve => {
                if self.approve(&name, csr).await {
                    info!(csr = name, requester = pending.requester, "approved");
                }
            }
            Verdict::Leave(reason) => {
                warn!(csr = name, requester = pending.requester, reason, "left pending");
                self.events.event(&reference(&csr), Kind::Warning, "NotApproved", reason);
            }
        }
    }

    async fn verdict(&self, pending: &Pending) -> Verdict {
        match self.by {
            By::Any => Verdict::Approve,
            By::Inventory => {
                // Read each time: nodes come and go.
                let inventory = self.inventory.as_deref().map(read).transpose();
                let inventory = inventory
                    .inspect_err(|error| warn!(%error, "The inventory cannot be read"))
                    .unwrap_or_default()
                    .unwrap_or_default();
                let known = pending.node().and_then(|node| inventory.get(node));
                pending.judge(known, "the inventory")
            }
            By::NodeObject => {
                let claimed = self.claimed(pending).await;
                pending.judge(claimed.as_ref(), "the Node object")
            }
        }
    }

    /// What the requesting node's own object says.
    async fn claimed(&self, pending: &Pending) -> Option<BTreeSet<String>> {
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.get(pending.node()?).await;
        let node = node.inspect_err(|error| warn!(%error, "The node cannot be read")).ok()?;
        let addresses = node.status?.addresses?;
        Some(addresses.into_iter().map(|address| address.address).collect())
    }

    /// Whether the approval was written; others may have been quicker.
    async fn approve(&self, name: &str, mut csr: CertificateSigningRequest) -> bool {
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let mut backoff = Backoff::new();
        for _ in 0..ATTEMPTS {
            csr.status.get_or_insert_default().conditions = Some(vec![self.condition()]);
            match api.replace_subresource("approval", name, &PostParams::default(), &csr).await {
                Ok(_) => return true,
                Err(error) => warn!(%error, csr = name, "The approval cannot be written"),
            }
            backoff.wait().await;
            match api.get_opt(name).await {
                Ok(Some(newer)) if Pending::of(&newer).is_some() => csr = newer,
                Ok(_) => return false,
                Err(error) => warn!(%error, csr = name, "The request cannot be read"),
            }
        }
        false
    }

    fn condition(&self) -> CertificateSigningRequestCondition {
        let message = match self.by {
            By::Any => "Auto approving every kubelet serving certificate.",
            By::NodeObject => "Auto approving kubelet serving certificate for addresses of the Node object.",
            By::Inventory => "Auto approving kubelet serving certificate for addresses of the inventory.",
        };
        let now = Some(Time(Timestamp::now()));
        CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            reason: Some("AutoApproved".into()),
            message: Some(message.into()),
            last_update_time: now.clone(),
            last_transition_time: now,
        }
    }
}

fn read(path: &Path) -> Result<Inventory, ApproverError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ApproverError::Read { path: path.to_owned(), source })?;
    serde_yaml_ng::from_str(&text).map_err(|source| ApproverError::Parse { path: path.to_owned(), source })
}

/// The server's own words, or why there was no answer.
fn in_short(error: &watcher::Error) -> String {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref());
    match cause {
        Some(kube::Error::Api(status)) => status.message.clone(),
        _ => go_text(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_asked_for_where_it_is_believed() {
        let parse = |words: &str| Options::try_parse_from(words.split(' '));
        assert!(parse("csr-approver --kubeconfig=/k --approve=any").is_ok());
        assert!(parse("csr-approver --kubeconfig=/k --approve=inventory").is_err());
        let options = parse("csr-approver --kubeconfig=/k --approve=inventory --inventory=/i").unwrap();
        assert_eq!(options.approve, By::Inventory);
    }
}
