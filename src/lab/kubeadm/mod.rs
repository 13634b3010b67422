//! The kubeadm role: puts the API objects a cluster starts with, once the API server is there; on a host that
//! joins later, finds the cluster for it ([`join`]).
//!
//! The part of `kubeadm init` that talks to the API: bootstrap token, RBAC bindings, cluster-info, the
//! configuration kept in ConfigMaps, CoreDNS; and the manifests in `/etc/kubernetes/addons`, as the old addon
//! manager did. It goes by `super-admin.conf`, is safe to run again and ends. Certificates, kubeconfigs and
//! manifests, kubeadm's other phases, are the plan's.

mod addons;
mod join;
mod objects;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::Value;
use tracing::info;

use super::objects::put;

const SUPER_ADMIN: &str = "/etc/kubernetes/super-admin.conf";
const ADDONS: &str = "/etc/kubernetes/addons";

/// How long the first nodes are waited for; a control plane without nodes gets its addons all the same.
const LONGEST_JOIN: Duration = Duration::from_secs(2);

/// The flags of `kubeadm init` and `join` that this part of it reads.
#[derive(Parser)]
#[command(name = "kubeadm", disable_version_flag = true)]
enum Flags {
    /// Put the objects of a new cluster
    Init {
        /// InitConfiguration, ClusterConfiguration and KubeletConfiguration, one document each
        #[arg(long)]
        config: PathBuf,
    },
    /// Make this host a node of a cluster that runs
    Join {
        /// A JoinConfiguration
        #[arg(long)]
        config: PathBuf,
    },
}

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let words = std::iter::once("kubeadm".to_owned()).chain(argv);
    let flags = match Flags::try_parse_from(words) {
        Ok(flags) => flags,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match flags {
        Flags::Init { config } => {
            let (network, workloads) = runtime.block_on(init(&config))?;
            // Nodes can join from here on; what runs on them comes after.
            crate::sys::inherit::ready();
            runtime.block_on(put_addons(&network, &workloads))?;
        }
        Flags::Join { config } => {
            runtime.block_on(join::join(&config))?;
            crate::sys::inherit::ready();
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts what nodes need to join; gives back the network and the workloads that are to come after.
async fn init(config: &Path) -> anyhow::Result<(addons::Network, Vec<Value>)> {
    let started = Instant::now();
    let text = std::fs::read_to_string(config).with_context(|| format!("read {}", config.display()))?;
    let config = objects::Config::from_yaml(&text).context("read the kubeadm configuration")?;
    let ca = config.certificates.join("ca.crt");
    let ca = std::fs::read_to_string(&ca).with_context(|| format!("read {}", ca.display()))?;
    let kubeadms = objects::of_cluster(&config, &ca, jiff::Timestamp::now())?;
    let manifests = manifests(Path::new(ADDONS))?;
    let client = crate::client::from_kubeconfig(SUPER_ADMIN)?;
    // A namespace comes before what is in it; everything else goes at once.
    let (namespaces, rest): (Vec<Value>, Vec<Value>) =
        manifests.into_iter().partition(|object| object["kind"] == "Namespace");
    // An agents' DaemonSet is part of the way to the nodes, a Deployment is not.
    let (workloads, rest): (Vec<Value>, Vec<Value>) =
        rest.into_iter().partition(|object| object["kind"] == "Deployment");
    let in_namespaces = async {
        all(&client, "minilab", &namespaces).await?;
        all(&client, "minilab", &rest).await
    };
    futures_util::future::try_join(all(&client, "kubeadm", &kubeadms), in_namespaces).await?;
    let count = kubeadms.len() + namespaces.len() + rest.len();
    info!(objects = count, tookMs = started.elapsed().as_millis(), "Cluster objects are in place");
    Ok((config.network()?, workloads))
}

async fn put_addons(network: &addons::Network, workloads: &[Value]) -> anyhow::Result<()> {
    let client = crate::client::from_kubeconfig(SUPER_ADMIN)?;
    // Their pods would start on nodes that are still joining, and hold those up.
    let _ = tokio::time::timeout(LONGEST_JOIN, nodes_are_ready(&client)).await;
    let addons = addons::objects(network);
    let (kubeadms, own) = (all(&client, "kubeadm", &addons), all(&client, "minilab", workloads));
    futures_util::future::try_join(kubeadms, own).await?;
    Ok(())
}

/// Resolves when there are nodes and all of them are Ready.
async fn nodes_are_ready(client: &Client) {
    let api: Api<Node> = Api::all(client.clone());
    loop {
        let nodes = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        let ready = |node: &Node| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref());
            conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
        };
        if !nodes.is_empty() && nodes.iter().all(ready) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The objects of every file in a directory; none when it does not exist.
fn manifests(directory: &Path) -> anyhow::Result<Vec<Value>> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?,
    };
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "yaml"));
    paths.sort();
    let mut objects = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let documents = objects::documents(&text).with_context(|| format!("read {}", path.display()))?;
        objects.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    Ok(objects)
}

async fn all(client: &Client, manager: &str, objects: &[Value]) -> anyhow::Result<()> {
    try_join_all(objects.iter().map(|object| put(client, manager, object))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addons_are_read_in_order_and_a_missing_directory_holds_none() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("b.yaml"), "kind: B\n").unwrap();
        std::fs::write(temp.path().join("a.yaml"), "kind: A\n---\nkind: AA\n---\n").unwrap();
        std::fs::write(temp.path().join("a.txt"), "not: this").unwrap();
        let kinds: Vec<_> =
            manifests(temp.path()).unwrap().iter().map(|object| object["kind"].to_string()).collect();
        assert_eq!(kinds, ["\"A\"", "\"AA\"", "\"B\""]);
        assert!(manifests(&temp.path().join("none")).unwrap().is_empty());
    }
}
