//! The kubelet's side: starts shims, asks them, hears of every change, and finds them again on disk.
//!
//! A kubelet may end at any moment and its successor misses nothing: a shim puts every change on disk before
//! it tells anyone, and holds a lock as long as it lives. So "stuck" (lock held, no answer) and "gone" (lock
//! free) are told apart, and of one that is gone the record is completed here.
//!
//! ```text
//!  run_sandbox ─► Live ── shim ends, by request or by force ──► Ended ── remove_sandbox ─► (forgotten)
//!  found on disk ──┴─────────────── its lock is free ─────────────┘
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::caller::{self, Caller};
use super::log::now;
use super::protocol::{self, Birth, Directories, Refusal, RefusalKind, Request, SandboxPaths, State};
use super::record;
use super::spec::{ContainerPhase, ContainerSpec, ContainerStatus, SandboxSpec, SandboxStatus};

/// How long a shim may take for what it does at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How long it may take to kill what it holds, before it is killed itself.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// What went wrong with a sandbox or container.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    #[error("start containerd-shim for pod {pod}")]
    Launch { pod: String, source: io::Error },
    #[error("failed to create pod sandbox: {0}")]
    Sandbox(String),
    #[error("failed to find sandbox {0:?} in store: not found")]
    NoSandbox(String),
    #[error("the shim of sandbox {id} is gone")]
    Gone { id: String, source: io::Error },
    #[error("the shim of sandbox {id} did not answer within {within:?}")]
    Silent { id: String, within: Duration },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("command {command:?} timed out")]
    TimedOut { command: String, within: Duration },
    /// `containerd/internal/cri/server/sandbox_portforward_linux.go`
    #[error(
        "failed to execute portforward in network namespace {network:?}: failed to connect to localhost:{port} \
         inside namespace {sandbox:?}, IPv4: dial tcp4 127.0.0.1:{port}: {v4} IPv6 dial tcp6 [::1]:{port}: {v6} "
    )]
    Connect { network: String, port: u16, sandbox: String, v4: String, v6: String },
    #[error("{action} {path}")]
    Disk { action: &'static str, path: PathBuf, source: io::Error },
}

impl ShimError {
    /// Which of the kubelet's reasons a container is waiting for, where the shim refused it.
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            ShimError::Refused(refusal) => Some(refusal.kind),
            _ => None,
        }
    }
}

/// All pods of a node. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directories: Directories,
    sandboxes: Mutex<BTreeMap<String, Known>>,
    news: mpsc::UnboundedSender<String>,
    listener: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
    /// Told whenever something changed in any pod.
    changes: watch::Sender<()>,
}

/// A sandbox as last heard of.
#[derive(Debug)]
struct Known {
    state: State,
    live: bool,
}

impl Runtime {
    /// Looks at nothing yet. Use it inside one tokio runtime.
    pub fn new(directories: Directories) -> Runtime {
        let (news, listener) = mpsc::unbounded_channel();
        Runtime(Arc::new(Inner {
            directories,
            sandboxes: Mutex::default(),
            news,
            listener: Mutex::new(Some(listener)),
            changes: watch::Sender::new(()),
        }))
    }

    /// The uid of a pod whenever something changed in it. For the first caller; later ones get nothing.
    pub fn events(&self) -> Option<mpsc::UnboundedReceiver<String>> {
        self.0.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Told whenever something changed in any pod.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn tell(&self, uid: String) {
        // The kubelet may be on its way out.
        let _ = self.0.news.send(uid);
        self.0.changes.send_replace(());
    }

    /// Whether a pod has this container and it has not ended, as last heard of.
    pub fn is_running(&self, uid: &str, container: &str) -> bool {
        let known = self.known();
        let of_pod = known.values().filter(|known| known.state.sandbox.spec.pod_uid == uid);
        let mut containers = of_pod.flat_map(|known| &known.state.sandbox.containers);
        containers.any(|one| one.id == container && one.phase != ContainerPhase::Exited)
    }

    /// Makes a pod's sandbox.
    pub async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<SandboxStatus, ShimError> {
        let id = new_id();
        let birth = timeout(PATIENCE, self.launch(&id, spec)).await;
        let birth = birth.map_err(|_| ShimError::Silent { id: id.clone(), within: PATIENCE })?;
        let launch = |source| ShimError::Launch { pod: spec.pod_name.clone(), source };
        match birth.map_err(launch)? {
            Birth::Ready(state) => {
                let status = state.sandbox.clone();
                self.hold(&id, *state);
                Ok(status)
            }
            Birth::Failed(message) => Err(ShimError::Sandbox(message)),
        }
    }

    /// Every sandbox of the node, also those whose shim has ended, until they are removed.
    pub async fn sandboxes(&self) -> Result<Vec<SandboxStatus>, ShimError> {
        let directories = &self.0.directories;
        let failed = |source| ShimError::Disk { action: "list", path: directories.state.clone(), source };
        let ids = record::scan(directories).map_err(failed)?;
        for id in ids {
            if !self.known().contains_key(&id) {
                self.adopt(&id).await;
            }
        }
        Ok(self.known().values().map(|known| known.state.sandbox.clone()).collect())
    }

    /// One pod's sandboxes as last heard of, the newest last. Looks at nothing on disk.
    pub fn of_pod(&self, uid: &str) -> Vec<SandboxStatus> {
        let mut sandboxes: Vec<SandboxStatus> = {
            let known = self.known();
            let of_pod = known.values().filter(|known| known.state.sandbox.spec.pod_uid == uid);
            of_pod.map(|known| known.state.sandbox.clone()).collect()
        };
        sandboxes.sort_by_key(|sandbox| sandbox.spec.attempt);
        sandboxes
    }

    /// Every sandbox as last heard of. Looks at nothing on disk.
    pub fn known_sandboxes(&self) -> Vec<SandboxStatus> {
        self.known().values().map(|known| known.state.sandbox.clone()).collect()
    }

    /// Makes and starts a container. One whose program could not be run is an error, and is listed as ended.
    pub async fn start_container(
        &self,
        sandbox: &str,
        spec: &ContainerSpec,
    ) -> Result<ContainerStatus, ShimError> {
        let id = new_id();
        let request = Request::Start { container: id.clone(), spec: Box::new(spec.clone()) };
        let state = self.call(sandbox, request, PATIENCE).await?;
        let mut containers = state.sandbox.containers.into_iter();
        containers.find(|container| container.id == id).ok_or_else(|| {
            Refusal::new(RefusalKind::NotFound, format!("container {id} is not listed by its shim")).into()
        })
    }

    /// SIGTERM, then SIGKILL after the grace; returns when the container has ended.
    pub async fn stop_container(
        &self,
        sandbox: &str,
        container: &str,
        grace: Duration,
    ) -> Result<(), ShimError> {
        let grace_ms = grace.as_millis().try_into().unwrap_or(u64::MAX);
        let request = Request::Stop { container: container.to_owned(), grace_ms };
        self.ask(sandbox, request, grace.saturating_add(PATIENCE)).await
    }

    /// Forgets a container and what it wrote to its root; not its log.
    pub async fn remove_container(&self, sandbox: &str, container: &str) -> Result<(), ShimError> {
        self.ask(sandbox, Request::Remove { container: container.to_owned() }, PATIENCE).await?;
        let paths = self.paths(sandbox);
        if !self.is_live(sandbox)
            && let Some(known) = self.known().get_mut(sandbox)
        {
            known.state.number += 1;
            known.state.sandbox.containers.retain(|one| one.id != container);
            save(&paths, &known.state)?;
        }
        remove_tree(paths.container(container)).await
    }

    /// Opens a container's log anew, after its file was moved away.
    pub async fn reopen_log(&self, sandbox: &str, container: &str) -> Result<(), ShimError> {
        self.ask(sandbox, Request::ReopenLog { container: container.to_owned() }, PATIENCE).await
    }

    /// Kills what runs in a sandbox and ends its shim, by force if it does not answer.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), ShimError> {
        if !self.is_live(id) {
            return Ok(());
        }
        let lock = self.paths(id).lock();
        match self.ask(id, Request::StopSandbox, LAST_PATIENCE).await {
            Ok(()) | Err(ShimError::Gone { .. }) => {}
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "killing a shim");
                if let Some(pid) = record::holder(&lock) {
                    // Its containers die with it.
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
            }
        }
        for _ in 0..2_000 {
            if !record::alive(&lock) {
                self.bury(id);
                return Ok(());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Err(ShimError::Silent { id: id.to_owned(), within: LAST_PATIENCE })
    }

    /// Stops a sandbox if it runs, and forgets it with everything it kept on disk.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), ShimError> {
        self.stop_sandbox(id).await?;
        let paths = self.paths(id);
        remove_tree(paths.run).await?;
        remove_tree(paths.state).await?;
        self.known().remove(id);
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn paths(&self, id: &str) -> SandboxPaths {
        self.0.directories.sandbox(id)
    }

    pub(super) fn is_live(&self, id: &str) -> bool {
        self.known().get(id).is_some_and(|known| known.live)
    }

    /// Executes a shim and waits for its word. It leaves this process's tree before it does anything.
    async fn launch(&self, id: &str, spec: &SandboxSpec) -> io::Result<Birth> {
        let paths = self.paths(id);
        let mut child = tokio::process::Command::new(paths.bin.join("containerd-shim"))
            .arg0("containerd-shim")
            .args(["-namespace", "minilab", "-id", id, "-address"])
            .arg(paths.socket())
            .env_clear()
            .envs(std::env::var("MINILAB_LOG").map(|level| ("MINILAB_LOG", level)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(&protocol::line(spec)).await?;
        }
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).await?;
        }
        let status = child.wait().await?;
        serde_json::from_str(&line)
            .map_err(|_| io::Error::other(format!("it ended ({status}) without saying why")))
    }

    /// Takes in a sandbox found on disk.
    async fn adopt(&self, id: &str) {
        let paths = self.paths(id);
        let Some(state) = record::load(&paths) else {
            // A shim that is just being born has no record yet; one without a shim never had a pod.
            if !record::alive(&paths.lock()) {
                let _ = remove_tree(paths.run).await;
                let _ = remove_tree(paths.state).await;
            }
            return;
        };
        record::sweep(&paths, &state);
        if record::alive(&paths.lock()) {
            self.hold(id, state);
        } else {
            self.known().insert(id.to_owned(), Known { state, live: true });
            self.bury(id);
        }
    }

    /// Keeps a living sandbox's state up to date from now on.
    fn hold(&self, id: &str, state: State) {
        self.known().insert(id.to_owned(), Known { state, live: true });
        let (runtime, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move { runtime.follow(&id).await });
    }

    /// Listens to a shim until it is gone.
    async fn follow(&self, id: &str) {
        let lock = self.paths(id).lock();
        while self.is_live(id) {
            // However the connection ended, the lock says whether the shim did.
            if let Err(error) = self.listen(id).await {
                tracing::debug!(sandbox = %id, %error, "the connection to a shim ended");
            }
            if !record::alive(&lock) {
                return self.bury(id);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn listen(&self, id: &str) -> io::Result<()> {
        let mut connection = Caller::connect(self.paths(id)).await?;
        connection.send(Request::Watch).await?;
        while let Some(answer) = connection.receive().await? {
            if let Some(state) = answer.state {
                self.learn(id, state);
            }
        }
        Ok(())
    }

    /// Takes in a state unless a newer one is known.
    fn learn(&self, id: &str, state: State) {
        let uid = match self.known().get_mut(id) {
            Some(known) if known.live && known.state.number < state.number => {
                known.state = state;
                known.state.sandbox.spec.pod_uid.clone()
            }
            _ => return,
        };
        // Nobody listens in a kubelet that is ending.
        self.tell(uid);
    }

    /// Completes the record of a sandbox whose shim is gone. What the shim wrote last counts.
    fn bury(&self, id: &str) {
        let paths = self.paths(id);
        let uid = {
            let mut all = self.known();
            let Some(known) = all.get_mut(id).filter(|known| known.live) else { return };
            if let Some(state) = record::load(&paths) {
                known.state = state;
            }
            record::end(&mut known.state, &now());
            known.live = false;
            if let Err(error) = record::save(&paths, &known.state) {
                tracing::warn!(sandbox = %id, %error, "cannot complete a sandbox's record");
            }
            known.state.sandbox.spec.pod_uid.clone()
        };
        self.tell(uid);
    }

    /// As [`Runtime::call`], where a shim that has ended has nothing left to do.
    async fn ask(&self, id: &str, request: Request, within: Duration) -> Result<(), ShimError> {
        if !self.known().contains_key(id) {
            return Err(ShimError::NoSandbox(id.to_owned()));
        }
        if !self.is_live(id) {
            return Ok(());
        }
        match self.call(id, request, within).await {
            Err(ShimError::Refused(Refusal { kind: RefusalKind::NotFound, .. })) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn call(&self, id: &str, request: Request, within: Duration) -> Result<State, ShimError> {
        if !self.is_live(id) {
            return Err(ShimError::NoSandbox(id.to_owned()));
        }
        let exchange = caller::exchange(self.paths(id), request);
        let answer = timeout(within, exchange)
            .await
            .map_err(|_| ShimError::Silent { id: id.to_owned(), within })?
            .map_err(|source| ShimError::Gone { id: id.to_owned(), source })?;
        if let Some(state) = &answer.state {
            self.learn(id, state.clone());
        }
        match (answer.refusal, answer.state) {
            (Some(refusal), _) => Err(refusal.into()),
            (None, Some(state)) => Ok(state),
            (None, None) => {
                let source = io::Error::from(io::ErrorKind::InvalidData);
                Err(ShimError::Gone { id: id.to_owned(), source })
            }
        }
    }
}

pub(super) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn save(paths: &SandboxPaths, state: &State) -> Result<(), ShimError> {
    record::save(paths, state).map_err(|source| ShimError::Disk {
        action: "write",
        path: paths.record(),
        source,
    })
}

/// Removes a directory off this thread: a container may have written a lot.
async fn remove_tree(path: PathBuf) -> Result<(), ShimError> {
    let failed = {
        let path = path.clone();
        move |source| ShimError::Disk { action: "remove", path, source }
    };
    // A kubelet that is just ending may still complete a record in it: then it is not empty, once.
    let again = |error: &io::Error| error.kind() == io::ErrorKind::DirectoryNotEmpty;
    let removed = tokio::task::spawn_blocking(move || {
        let remove = || std::fs::remove_dir_all(&path);
        match remove().or_else(|error| if again(&error) { remove() } else { Err(error) }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    });
    removed.await.map_err(io::Error::other).and_then(|result| result).map_err(failed)
}
