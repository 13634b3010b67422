//! The API server's half: a tunnel to every node there is, and the choice among them.
//!
//! ```text
//!              ┌──────────── back-off ◀───────────┐
//!  address ──▶ opening ──▶ open, listed ──▶ closed or unhealthy
//! ```
//!
//! Departs from upstream, which looked at a tunnel once a minute and for new nodes every fifteen seconds: one
//! that breaks is opened again at once. The check of every minute is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::SshError;
use super::channel::Forwarded;
use super::known::HostKeys;
use super::tunnel::{Credentials, Tunnel};
use crate::client::Backoff;
use crate::net::{self, BoxStream, Dial, DialError, Dialing, Protocols, Verify};

/// Between two looks at a tunnel.
const HEALTH_POLL: Duration = Duration::from_secs(60);
const KUBELET: u16 = 10250;
/// How long after a tunnel's loss a dial waits for the next one before it complains.
const REOPEN: Duration = Duration::from_secs(2);
/// Tunnels a dial tries, where each turns out to be cut.
const TRIES: usize = 3;
/// Upstream's limit for a user's name.
const LONGEST_USER: usize = 32;

/// The flags: `--ssh-user`, `--ssh-keyfile`, and which hosts' keys are known.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    pub user: &'a str,
    pub keyfile: &'a Path,
    pub known_hosts: Option<&'a Path>,
}

/// Where the road by SSH wants to be told which nodes there are.
type Nodes = watch::Sender<BTreeSet<String>>;

/// The road by SSH.
pub fn road(login: Login<'_>) -> Result<(Arc<dyn Dial>, Nodes), SshError> {
    let tunnels = Arc::new(Tunnels::build(login, None, HEALTH_POLL)?);
    let (tell, nodes) = watch::channel(BTreeSet::new());
    tokio::spawn(Arc::clone(&tunnels).follow(nodes));
    Ok((tunnels, tell))
}

/// Every open tunnel by its node's address.
pub struct Tunnels {
    credentials: Credentials,
    open: Mutex<BTreeMap<String, Arc<Tunnel>>>,
    /// Told whenever a tunnel is opened.
    opened: Notify,
    lost: Mutex<Instant>,
    tls: TlsConnector,
    /// sshd's port, where it is not 22.
    port: Option<u16>,
    health_poll: Duration,
}

impl Tunnels {
    pub fn build(login: Login<'_>, port: Option<u16>, health_poll: Duration) -> Result<Self, SshError> {
        let path = || PathBuf::from(login.keyfile);
        let key = russh::keys::load_secret_key(login.keyfile, None)
            .map_err(|source| SshError::Key { path: path(), source })?;
        let user: String = login.user.chars().take(LONGEST_USER).collect();
        if user != login.user {
            tracing::warn!("SSH User is too long, truncating to 32 chars");
        }
        let hosts = match login.known_hosts {
            None => HostKeys::Ignored,
            Some(file) => HostKeys::Pinned(file.to_owned()),
        };
        tracing::info!(user, keyfile = %login.keyfile.display(), ?hosts, "Setting up proxy");
        // As upstream's own check has it: a kubelet's certificate does not name 127.0.0.1.
        let tls = net::client_config(&Verify::Unverified, None, Protocols::H1)?;
        Ok(Self {
            credentials: Credentials { user, key: Arc::new(key), hosts },
            open: Mutex::default(),
            opened: Notify::new(),
            lost: Mutex::new(Instant::now()),
            tls: TlsConnector::from(tls),
            port,
            health_poll,
        })
    }

    /// Keeps a tunnel to every node it is told of, until nobody can tell it any more.
    pub async fn follow(self: Arc<Self>, mut nodes: watch::Receiver<BTreeSet<String>>) {
        let mut kept: BTreeMap<String, tokio_util::sync::DropGuard> = BTreeMap::new();
        loop {
            let wanted = nodes.borrow_and_update().clone();
            for gone in kept.keys().filter(|known| !wanted.contains(*known)) {
                tracing::info!(address = gone, "Removing tunnel to deleted node");
            }
            kept.retain(|known, _| wanted.contains(known));
            for address in wanted {
                let own = Arc::clone(&self);
                kept.entry(address.clone()).or_insert_with(|| {
                    let stop = CancellationToken::new();
                    tokio::spawn(own.keep(address, stop.clone()));
                    stop.drop_guard()
                });
            }
            if nodes.changed().await.is_err() {
                return;
            }
        }
    }

    /// One node's tunnel, opened again whenever it ends.
    async fn keep(self: Arc<Self>, address: String, stop: CancellationToken) {
        let mut backoff = Backoff::new();
        while !stop.is_cancelled() {
            tokio::select! {
                () = backoff.wait() => {}
                () = stop.cancelled() => return,
            }
            tracing::debug!(address, "Trying to add tunnel");
            let tunnel = match Tunnel::open(&address, self.port, &self.credentials).await {
                Ok(tunnel) => Arc::new(tunnel),
                Err(error) => {
                    tracing::error!("Failed to open tunnel to {address:?}: {error}");
                    continue;
                }
            };
            self.open().insert(address.clone(), Arc::clone(&tunnel));
            self.opened.notify_waiters();
            tracing::info!("Successfully added tunnel for {address:?}");
            backoff.reset();
            tokio::select! {
                () = tunnel.closed.cancelled() => tracing::error!("The tunnel to {address:?} has ended"),
                error = self.unhealthy(&tunnel) => {
                    tracing::error!("Healthcheck failed for tunnel to {address:?}: {error}");
                    tracing::info!("Attempting once to re-establish tunnel to {address:?}");
                }
                () = stop.cancelled() => {}
            }
            *self.lost() = Instant::now();
            self.open().remove(&address);
            tunnel.close().await;
        }
    }

    /// Looks at a tunnel now and then; says why it is no good once it is not.
    async fn unhealthy(&self, tunnel: &Tunnel) -> String {
        loop {
            tokio::time::sleep(self.health_poll).await;
            if let Err(error) = tunnel.check(&self.tls, KUBELET).await {
                return error;
            }
        }
    }

    /// The tunnel of that node, or else any.
    fn pick(&self, host: &str) -> Result<Arc<Tunnel>, DialError> {
        let open = self.open();
        if let Some(own) = open.get(host) {
            return Ok(Arc::clone(own));
        }
        let random = usize::from(uuid::Uuid::new_v4().as_bytes()[0]);
        let Some(any) = open.values().nth(random % open.len().max(1)) else {
            return Err(self.none());
        };
        tracing::warn!("SSH tunnel not found for address {host:?}, picking random node");
        Ok(Arc::clone(any))
    }

    fn none(&self) -> DialError {
        DialError::Tunnel(format!(
            "No SSH tunnels currently open. Were the targets able to accept an ssh-key for user {:?}?",
            self.credentials.user
        ))
    }

    /// When a tunnel was last lost; at first, when there was none yet.
    fn lost(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn through(&self, host: &str, port: u16) -> Result<Forwarded, DialError> {
        let mut tries = TRIES;
        loop {
            let opened = self.opened.notified();
            let failure = match self.pick(host) {
                Err(none) => none,
                Ok(tunnel) => match tunnel.dial(host, port).await {
                    // Cut, and nobody had noticed: that is no answer of the node's.
                    Err(_) if tunnel.closed.is_cancelled() => {
                        *self.lost() = Instant::now();
                        self.none()
                    }
                    outcome => return outcome,
                },
            };
            tries -= 1;
            // One that was lost only now is opened again at once, and nobody need hear of it.
            let left = REOPEN.saturating_sub(self.lost().elapsed());
            if tries == 0 || timeout(left, opened).await.is_err() {
                return Err(failure);
            }
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Tunnel>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dial for Tunnels {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(async move { Ok(Box::new(self.through(host, port).await?) as BoxStream) })
    }
}
