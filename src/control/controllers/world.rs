//! What the control loops share: one informer a kind, and the identities they write with.

mod late;

use std::fmt::Debug;
use std::rc::Rc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::identity::Identities;
use super::options::Options;
use crate::client::Backoff;
use crate::client::events::{Kind, Recorder, reference};
use crate::client::informer::Informer;

/// The role's view of the cluster. Kinds nobody but the garbage collector needs are its own business.
pub struct World {
    pub options: Options,
    pub identities: Identities,
    pub nodes: Informer<Node>,
    /// Only those of namespace `kube-node-lease`.
    pub leases: Informer<Lease>,
    pub pods: Informer<Pod>,
    pub namespaces: Informer<Namespace>,
    pub service_accounts: Informer<ServiceAccount>,
    /// Only those named `kube-root-ca.crt`.
    pub root_cas: Informer<ConfigMap>,
    /// Only `kube-public/cluster-info`.
    pub cluster_info: Informer<ConfigMap>,
    /// Only bootstrap tokens.
    pub tokens: Informer<Secret>,
    /// Only the tokens of service accounts.
    pub token_secrets: Informer<Secret>,
    pub cluster_roles: Informer<ClusterRole>,
    pub csrs: Informer<CertificateSigningRequest>,
    pub services: Informer<Service>,
    pub endpoints: Informer<Endpoints>,
    pub slices: Informer<EndpointSlice>,
    pub replica_sets: Informer<ReplicaSet>,
    pub deployments: Informer<Deployment>,
    pub daemon_sets: Informer<DaemonSet>,
    pub late: late::Late,
}

/// One controller's hands: a client with its own identity and a voice.
#[derive(Clone)]
pub struct Actor {
    pub client: Client,
    recorder: Recorder,
}

impl Actor {
    /// Reports something about an object, as `kubectl describe` shows it. Never waits.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: &str) {
        self.recorder.event(&reference(about), Kind::Normal, reason, message);
    }

    pub fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, message: &str) {
        self.recorder.event(&reference(about), Kind::Warning, reason, message);
    }
}

impl World {
    pub fn new(options: Options, identities: Identities) -> Rc<Self> {
        Rc::new(Self {
            options,
            identities,
            nodes: Informer::default(),
            leases: Informer::default(),
            pods: Informer::default(),
            namespaces: Informer::default(),
            service_accounts: Informer::default(),
            root_cas: Informer::default(),
            cluster_info: Informer::default(),
            tokens: Informer::default(),
            token_secrets: Informer::default(),
            cluster_roles: Informer::default(),
            csrs: Informer::default(),
            services: Informer::default(),
            endpoints: Informer::default(),
            slices: Informer::default(),
            replica_sets: Informer::default(),
            deployments: Informer::default(),
            daemon_sets: Informer::default(),
            late: late::Late::default(),
        })
    }

    /// `account` is the service account upstream's controller acts as; `component` names it in events.
    pub fn actor(&self, account: &'static str, component: &'static str) -> Actor {
        let client = self.identities.client_for(account);
        Actor { recorder: Recorder::new(client.clone(), component, ""), client }
    }

    /// Starts every watch. Handlers must be registered before; returns when all have synced once.
    pub async fn watch(&self) {
        let client = self.identities.own();
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        // CSRs and nodes first: nodes that join wait for them.
        follow(&self.csrs, Api::all(client.clone()), watcher::Config::default());
        follow(&self.nodes, Api::all(client.clone()), watcher::Config::default());
        follow(&self.namespaces, Api::all(client.clone()), watcher::Config::default());
        follow(&self.service_accounts, Api::all(client.clone()), watcher::Config::default());
        follow(&self.root_cas, Api::all(client.clone()), named("kube-root-ca.crt"));
        follow(&self.pods, Api::all(client.clone()), watcher::Config::default());
        follow(&self.leases, Api::namespaced(client.clone(), "kube-node-lease"), watcher::Config::default());
        follow(&self.services, Api::all(client.clone()), watcher::Config::default());
        follow(&self.endpoints, Api::all(client.clone()), watcher::Config::default());
        follow(&self.slices, Api::all(client.clone()), watcher::Config::default());
        follow(&self.replica_sets, Api::all(client.clone()), watcher::Config::default());
        follow(&self.deployments, Api::all(client.clone()), watcher::Config::default());
        follow(&self.daemon_sets, Api::all(client.clone()), watcher::Config::default());
        follow(&self.cluster_info, Api::namespaced(client.clone(), "kube-public"), named("cluster-info"));
        let tokens = watcher::Config::default().fields("type=bootstrap.kubernetes.io/token");
        follow(&self.tokens, Api::namespaced(client.clone(), "kube-system"), tokens);
        let tokens = watcher::Config::default().fields("type=kubernetes.io/service-account-token");
        follow(&self.token_secrets, Api::all(client.clone()), tokens);
        follow(&self.cluster_roles, Api::all(client), watcher::Config::default());
        self.synced().await;
        self.late.watch(&self.identities.own());
    }

    /// Returns when every watch has shown a whole list.
    pub async fn synced(&self) {
        self.csrs.synced().await;
        self.nodes.synced().await;
        self.namespaces.synced().await;
        self.service_accounts.synced().await;
        self.root_cas.synced().await;
        self.pods.synced().await;
        self.leases.synced().await;
        self.services.synced().await;
        self.endpoints.synced().await;
        self.slices.synced().await;
        self.replica_sets.synced().await;
        self.deployments.synced().await;
        self.daemon_sets.synced().await;
        self.cluster_info.synced().await;
        self.tokens.synced().await;
        self.token_secrets.synced().await;
        self.cluster_roles.synced().await;
    }
}

fn follow<K>(informer: &Informer<K>, api: Api<K>, config: watcher::Config)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    tokio::task::spawn_local(informer.clone().run(api, config, Backoff::default));
}
