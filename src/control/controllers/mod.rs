//! kube-controller-manager: the control loops and the certificate signers.
//!
//! Every loop is level-triggered and derives all it knows from the API, so the role may be killed at
//! any moment. Loops share one watch a kind ([`world::World`]); each writes with an identity of its
//! own, and only while this process leads. Left out on purpose: cloud loops but the one for routes.

mod accounts;
mod autoscale;
mod batch;
pub(super) mod csr;
mod discovered;
mod disruption;
mod endpoints;
mod garbage;
mod identity;
mod namespace;
mod nodes;
mod options;
mod podgc;
mod queue;
mod quota;
mod storage;
mod workloads;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use anyhow::Context;
use clap::Parser;
use futures_util::future::LocalBoxFuture;
use tokio::task::LocalSet;
use tracing::{info, warn};

use crate::api::flags;
use crate::client;
use crate::control::component::{self, Working};
use crate::control::leader;
use identity::Identities;
use options::{Options, UNIMPLEMENTED};
use world::World;

/// What can go wrong in a control loop, beside an API call that is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    #[error("read {path}")]
    ReadFile { path: PathBuf, source: std::io::Error },
    #[error("use the signing key")]
    SigningKey(#[source] crate::pki::PkiError),
    #[error(
        "cannot specify --cluster-signing-{{cert,key}}-file and other --cluster-signing-*-file flags at the same time"
    )]
    SigningFiles,
    #[error("{0:?} is not in the list of known controllers")]
    UnknownController(String),
    #[error("talk to the cloud")]
    Cloud(#[source] std::io::Error),
    #[error("read the cloud's answer")]
    CloudAnswer(#[source] serde_json::Error),
    #[error("the cloud refused a route: {0}")]
    Route(String),
    /// The server's own words; kube-rs would print the whole status.
    #[error("{}", workloads::pods::text(.0))]
    Api(#[from] kube::Error),
}

/// Registers its handlers when called; the future is the loop itself.
type Start = fn(&Rc<World>) -> LocalBoxFuture<'static, ()>;

/// One row a controller: upstream's name, its old alias (both are what `--controllers` takes),
/// whether `*` means it too, and its start.
const CONTROLLERS: &[(&str, &str, bool, Start)] = &[
    ("certificatesigningrequest-approving-controller", "csrapproving", true, csr::approve::start),
    ("certificatesigningrequest-signing-controller", "csrsigning", true, csr::sign::start),
    ("certificatesigningrequest-cleaner-controller", "csrcleaner", true, csr::clean::start),
    ("node-ipam-controller", "nodeipam", true, nodes::ipam::start),
    ("node-route-controller", "route", true, nodes::routes::start),
    ("node-lifecycle-controller", "nodelifecycle", true, nodes::lifecycle::start),
    ("taint-eviction-controller", "taint-eviction", true, nodes::eviction::start),
    ("pod-garbage-collector-controller", "podgc", true, podgc::start),
    ("namespace-controller", "namespace", true, namespace::start),
    ("serviceaccount-controller", "serviceaccount", true, accounts::default::start),
    ("serviceaccount-token-controller", "serviceaccount-token", true, accounts::tokens::start),
    ("clusterrole-aggregation-controller", "clusterrole-aggregation", true, accounts::aggregation::start),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        true,
        accounts::legacy::start,
    ),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", true, accounts::root_ca::start),
    ("bootstrap-signer-controller", "bootstrapsigner", false, accounts::signer::start),
    ("token-cleaner-controller", "tokencleaner", false, accounts::cleaner::start),
    ("replicaset-controller", "replicaset", true, workloads::replicaset::start),
    ("deployment-controller", "deployment", true, workloads::deployment::start),
    ("daemonset-controller", "daemonset", true, workloads::daemonset::start),
    ("statefulset-controller", "statefulset", true, workloads::stateful::start),
    ("replicationcontroller-controller", "replicationcontroller", true, workloads::controller::start),
    ("disruption-controller", "disruption", true, disruption::start),
    ("persistentvolume-binder-controller", "persistentvolume-binder", true, storage::binder::start),
    ("resourcequota-controller", "resourcequota", true, quota::start),
    ("horizontal-pod-autoscaler-controller", "horizontalpodautoscaling", true, autoscale::start),
    ("job-controller", "job", true, batch::job::start),
    ("cronjob-controller", "cronjob", true, batch::cron::start),
    ("ttl-after-finished-controller", "ttl-after-finished", true, batch::ttl::start),
    ("endpoints-controller", "endpoint", true, endpoints::legacy::start),
    ("endpointslice-controller", "endpointslice", true, endpoints::slices::start),
    ("endpointslice-mirroring-controller", "endpointslicemirroring", true, endpoints::mirror::start),
    ("garbage-collector-controller", "garbagecollector", true, garbage::start),
];

/// The controllers of upstream's that this one lacks, and the old aliases among them.
const ELSEWHERE: &[&str] = &[
    "cloud-node-lifecycle-controller",
    "cloud-node-lifecycle",
    "device-taint-eviction-controller",
    "ephemeral-volume-controller",
    "ephemeral-volume",
    "kube-apiserver-serving-clustertrustbundle-publisher-controller",
    "persistentvolume-attach-detach-controller",
    "attachdetach",
    "persistentvolume-expander-controller",
    "persistentvolume-expander",
    "persistentvolume-protection-controller",
    "pv-protection",
    "persistentvolumeclaim-protection-controller",
    "pvc-protection",
    "podcertificaterequest-cleaner-controller",
    "resourceclaim-controller",
    "resource-claim-controller",
    "selinux-warning-controller",
    "service-cidr-controller",
    "service-lb-controller",
    "service",
    "storage-version-migrator-controller",
    "storageversion-garbage-collector-controller",
    "storage-version-gc",
    "ttl-controller",
    "ttl",
    "validatingadmissionpolicy-status-controller",
    "volumeattributesclass-protection-controller",
];

/// The role's entry point.
pub fn run(argv: Vec<String>) -> anyhow::Result<ExitCode> {
    let (kept, dropped) = flags::sift(argv, UNIMPLEMENTED);
    let options = Options::parse_from(std::iter::once("kube-controller-manager".to_owned()).chain(kept));
    dropped.iter().for_each(|flag| warn!(flag, "flag is accepted and has no effect here"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let local = LocalSet::new();
    local.block_on(&runtime, serve(options))?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses what no time will mend, before anything is started.
fn check(options: &Options) -> Result<(), ControllersError> {
    let known = |word: &str| {
        let ours = CONTROLLERS.iter().any(|(name, alias, ..)| word == *name || word == *alias);
        ours || word == "*" || ELSEWHERE.contains(&word)
    };
    for word in &options.controllers {
        if !known(word.strip_prefix('-').unwrap_or(word)) {
            return Err(ControllersError::UnknownController(word.clone()));
        }
    }
    options.signing_authorities().map(drop)
}

async fn serve(options: Options) -> anyhow::Result<()> {
    check(&options)?;
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
    let own = client::from_kubeconfig(&options.kubeconfig)?;
    let (leads, term) = leader::stand(own.clone(), &options.leader, "kube-controller-manager", &stop);
    let bare = match options.use_service_account_credentials {
        true => {
            let mut access = client::Access::read(&options.kubeconfig)?;
            (access.identity, access.token) = (None, None);
            Some(client::from_parts(access)?)
        }
        false => None,
    };
    let world = World::new(options, Identities::new(own, bare));
    for (name, alias, by_default, start) in CONTROLLERS {
        if world.options.wants(name, alias, *by_default) {
            // Handlers hear the watches from their start; the loop works when this process leads.
            let (work, mut leads) = (start(&world), leads.clone());
            tokio::task::spawn_local(async move {
                leads.acquired().await;
                work.await;
            });
        }
    }
    let work = async {
        world.watch().await;
        info!("all watches are synced");
        working.store(true, Ordering::Relaxed);
        crate::sys::inherit::ready();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => info!("asked to stop"),
    }
    // Gives the lease back.
    let _ = term.await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_nobody_knows_is_refused_before_anything_starts() {
        let with = |words: &str| {
            let argv = ["kube-controller-manager", "--kubeconfig=/k", words];
            check(&Options::try_parse_from(argv).unwrap())
        };
        assert!(with("--controllers=*,-job,bootstrapsigner,statefulset-controller").is_ok());
        let error = with("--controllers=*,foo").unwrap_err();
        assert_eq!(error.to_string(), "\"foo\" is not in the list of known controllers");
        assert!(with("--cluster-signing-cert-file=/nope").is_ok(), "without a key nothing is signed");
    }
}
