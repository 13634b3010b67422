//! The server as a whole: built from its flags, served on its listeners, stopped without losing a write.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::addresses::{Addresses, PortRange};
use super::admission::Admission;
use super::audit::Audit;
use super::authn::Authenticator;
use super::authz::{Authorizer, AuthzFlags};
use super::fairness::Fairness;
use super::flags::Flags;
use super::kubelet::KubeletClient;
use super::lists::Lists;
use super::masters::{Advertised, Masters};
use super::proxy::Proxy;
use super::serving::Files;
use super::system::{self, FrontDoor};
use super::{aggregate, chain, custom};
use crate::control::store::Store;
use crate::net::{self, Identity, Protocols, Roads, Server, ServingCert};
use crate::sys::inherit;

/// How long requests under way may take once the server is told to stop.
const GRACE: Duration = Duration::from_millis(250);
/// How long connections get after that to carry out what was written to them.
const DRAIN: Duration = Duration::from_millis(100);
/// History older than this is forgotten, as upstream asks etcd to every five minutes.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// All that is answered without a credential on the machine's loopback.
const HEALTH: &[&str] = &["/livez", "/readyz", "/healthz"];

/// Who may come in by one listener.
pub struct Door {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
}

/// What every request needs.
pub struct Api {
    pub store: Store,
    pub lists: Lists,
    pub addresses: Addresses,
    pub admission: Admission,
    pub kubelets: KubeletClient,
    pub proxy: Proxy,
    /// How many requests run at once.
    pub fairness: Fairness,
    /// How what is no part of this server is reached.
    pub roads: Roads,
    /// Where requests are noted down, if anywhere.
    pub audit: Option<Arc<Audit>>,
    /// What other API servers and components need to know to believe whom this one believes.
    pub front_door: FrontDoor,
    /// Where the cluster is told to find this server, `ADDRESS:PORT`.
    pub advertised: String,
    pub service_range: Ipv4Net,
    pub node_ports: PortRange,
    /// The port in the cluster.
    secure: Door,
    /// The listener on the machine's loopback, where Node,RBAC always holds.
    host: Door,
    inflight: AtomicUsize,
    served: AtomicU64,
    stopping: AtomicBool,
    closed: AtomicBool,
}

/// Counts one request as under way until it is dropped.
pub struct Counted(Option<Arc<Api>>);

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(api) = &self.0 {
            api.inflight.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Api {
    pub fn door(&self, listener: &str) -> &Door {
        if listener == "host" { &self.host } else { &self.secure }
    }

    /// Counts a request; a short one also as under way.
    pub fn count(self: &Arc<Self>, short: bool) -> Counted {
        self.served.fetch_add(1, Ordering::Relaxed);
        if short {
            self.inflight.fetch_add(1, Ordering::AcqRel);
        }
        Counted(short.then(|| self.clone()))
    }

    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    pub fn inflight(&self) -> usize {
        self.inflight.load(Ordering::Acquire)
    }

    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn store_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("serve TLS")]
    Tls(#[from] net::NetError),
    #[error("use the store")]
    Store(#[from] crate::control::store::StoreError),
    #[error("set up authentication")]
    Authn(#[from] super::authn::AuthnError),
    #[error("set up authorization")]
    Authz(#[from] super::authz::AuthzError),
    #[error("set up the audit log")]
    Audit(#[from] super::audit::AuditError),
    #[error("set up admission")]
    Admission(#[from] super::admission::AdmissionError),
    #[error("set up the way to kubelets")]
    Kubelets(#[from] super::kubelet::KubeletError),
    #[error("make the server's own objects: {0}")]
    Own(crate::api::status::Status),
}

/// Everything that could be prepared before the store opens.
pub struct Prepared {
    flags: Flags,
    roads: Roads,
    listeners: Vec<(&'static str, TcpListener, Server)>,
    cert: ServingCert,
}

impl Prepared {
    /// Loads the certificate and takes or binds the listeners: the part of a start that a successor does
    /// while its predecessor still holds the store.
    pub async fn build(mut flags: Flags, roads: Roads) -> Result<Self, ServeError> {
        (flags.authn.roads, flags.authz.roads) = (roads.clone(), roads.clone());
        flags.audit.roads = roads.clone();
        let identity =
            Identity { cert_pem: read(&flags.tls_cert_file)?, key_pem: read(&flags.tls_private_key_file)? };
        let cert = ServingCert::new(&identity)?;
        let server = |name| {
            Server::new(cert.clone(), Protocols::H2AndH1, name).map(|server| server.with_grace(GRACE + DRAIN))
        };
        let mut listeners = Vec::new();
        for (name, listener) in inherit::listeners() {
            let name = if name == "host" { "host" } else { "secure" };
            listeners.push((name, net::inherit(listener)?, server(name)?));
        }
        if listeners.is_empty() {
            let address = SocketAddr::new(flags.bind_address, flags.secure_port);
            listeners.push(("secure", net::bind(address).await?, server("secure")?));
        }
        Ok(Self { flags, roads, listeners, cert })
    }

    /// Opens the store and serves until `stop` is cancelled.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), ServeError> {
        let directory = self.flags.minilab_store_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
        let store =
            opened.map_err(|error| std::io::Error::other(error.to_string())).map_err(|source| {
                ServeError::Read { path: self.flags.minilab_store_dir.display().to_string(), source }
            })??;
        let api = build_api(&self.flags, &self.roads, store)?;
        let front = self.flags.aggregator.identity().map_err(|source| ServeError::Read {
            path: "the front proxy's certificate".to_owned(),
            source,
        })?;
        let masters = Masters::new(advertised(&self.flags), self.flags.endpoint_reconciler_type);
        custom::controller::load(&api.store);
        let own = async {
            masters.mend_service(&api).await.map_err(ServeError::Own)?;
            system::ensure(&api, &masters).await.map_err(ServeError::Own)
        };
        let bootstrap = async { Ok(super::bootstrap::reconcile(&api.store).await?) };
        tokio::try_join!(own, bootstrap)?;
        if let Some(nodes) = self.roads.nodes {
            tokio::spawn(super::tunneler::tell(api.clone(), nodes));
        }
        let files =
            Files { cert: self.flags.tls_cert_file.clone(), key: self.flags.tls_private_key_file.clone() };
        let background = [
            tokio::spawn(system::keep(api.clone(), masters)),
            tokio::spawn(system::expire_events(api.clone(), system::EVENT_TTL)),
            tokio::spawn(compact(api.store.clone())),
            tokio::spawn(files.follow(self.cert)),
            tokio::spawn(custom::controller::keep(api.clone())),
            tokio::spawn(aggregate::keep::keep(api.clone(), front)),
        ];
        let mut serving = tokio::task::JoinSet::new();
        for (name, listener, server) in self.listeners {
            let address = listener.local_addr().map(|at| at.to_string()).unwrap_or_default();
            tracing::info!(listener = name, address, "Serving securely");
            let api = api.clone();
            let service = tower::service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(chain::answer(api, request).await) }
            });
            serving.spawn(server.serve(listener, service, stop.clone()));
        }
        inherit::ready();
        stop.cancelled().await;
        background.iter().for_each(|task| task.abort());
        masters.leave(&api).await;
        close(&api).await;
        while serving.join_next().await.is_some() {}
        Ok(())
    }
}

/// Lets requests under way end, then closes the store, which ends every watch after its last event.
async fn close(api: &Api) {
    tracing::info!("shutting down");
    api.stopping.store(true, Ordering::Release);
    let deadline = tokio::time::Instant::now() + GRACE;
    let commands = api.proxy.commands.clone();
    let told = tokio::spawn(async move { commands.end(GRACE).await });
    while api.inflight() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let left = api.inflight();
    if let Some(audit) = &api.audit {
        audit.flush().await;
    }
    api.closed.store(true, Ordering::Release);
    api.store.close().await;
    // It ends by itself, in time.
    let _ = told.await;
    tracing::info!(left, "the store is closed");
}

fn build_api(flags: &Flags, roads: &Roads, store: Store) -> Result<Arc<Api>, ServeError> {
    let authorizer = Arc::new(flags.authz.build(store.clone())?);
    flags.authz.follow(&authorizer);
    let authenticator = flags.authn.build(store.clone(), flags.authz.always_allows())?;
    let host = Door {
        authenticator: Arc::new(authenticator.anonymous_only_on(HEALTH)),
        authorizer: Arc::new(AuthzFlags::strict().build(store.clone())?),
    };
    let at = advertised(flags);
    let admission = flags.admission.build(store.clone(), authorizer.clone(), roads.clone())?;
    let authenticator = Arc::new(authenticator);
    Ok(Arc::new(Api {
        lists: Lists::default(),
        addresses: Addresses::default(),
        admission,
        audit: flags.audit.build()?,
        front_door: FrontDoor::of(&flags.authn)?,
        kubelets: flags.kubelet.build(store.clone(), Arc::clone(&roads.cluster))?,
        proxy: Proxy::new(Arc::clone(&roads.cluster), flags.features.build(), flags.museum.clone())?,
        roads: roads.clone(),
        fairness: flags.fairness.build(),
        advertised: SocketAddr::new(at.address, at.port).to_string(),
        service_range: flags.service_cluster_ip_range,
        node_ports: flags.service_node_port_range,
        secure: Door { authenticator, authorizer },
        host,
        inflight: AtomicUsize::new(0),
        served: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        store,
    }))
}

/// Where clients in the cluster are told to go.
fn advertised(flags: &Flags) -> Advertised {
    let address =
        flags.advertise_address.or((!flags.bind_address.is_unspecified()).then_some(flags.bind_address));
    Advertised { address: address.unwrap_or(IpAddr::from([127, 0, 0, 1])), port: flags.secure_port }
}

/// Forgets history every five minutes, always keeping the last interval's.
async fn compact(store: Store) {
    let mut keep_from = store.revision();
    loop {
        tokio::time::sleep(COMPACT_EVERY).await;
        let now = store.revision();
        if let Err(error) = store.compact(keep_from).await {
            tracing::warn!(%error, "the store's history could not be compacted");
        }
        keep_from = now;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ServeError> {
    std::fs::read(path).map_err(|source| ServeError::Read { path: path.display().to_string(), source })
}
