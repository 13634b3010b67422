//! Starting a role: its command line from where an administrator keeps it, and all that it inherits.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use nix::fcntl::OFlag;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::events::{Event, Supervisor};
use super::hosts;
use super::liveness::Liveness;
use super::role::Life;
use crate::lab::cloud;
use crate::lab::files::Tree;
use crate::lab::order::{Order, Run};
use crate::lab::plan::{ListenAt, RolePlan};
use crate::sys::inherit::FIRST_LISTENER;
use crate::sys::process;

/// A role and its present run.
pub struct Role {
    pub(super) plan: RolePlan,
    pub(super) life: Life,
    /// Of the present run.
    pub(super) id: u64,
    pub(super) pid: Option<i32>,
    pub(super) argv: Vec<String>,
    pub(super) launched: Instant,
    /// What its manifest said when it was last looked at.
    pub(super) manifest: Option<Vec<u8>>,
    pub(super) liveness: Liveness,
    /// Why the last start came to nothing.
    pub(super) trouble: Option<String>,
    /// The plan has it no more: forgotten once it has ended.
    pub(super) leaving: bool,
    /// Kept across its restarts.
    pub(super) listeners: Vec<(String, OwnedFd)>,
}

impl Role {
    pub fn new(plan: RolePlan) -> Role {
        let life = Life::new(plan.one_shot);
        Role {
            plan,
            life,
            id: 0,
            pid: None,
            argv: Vec::new(),
            launched: Instant::now(),
            manifest: None,
            liveness: Liveness::default(),
            trouble: None,
            leaving: false,
            listeners: Vec::new(),
        }
    }
}

impl Supervisor {
    /// Starts a role's process with everything it inherits.
    pub(super) fn launch(&mut self, at: usize) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        self.roles[at].id = id;
        self.roles[at].launched = Instant::now();
        self.make_listeners(at)?;
        let role = &self.roles[at];
        let (name, host) = (role.plan.name.clone(), role.plan.host.clone());
        let tree = Tree::of(&self.lab, &host)?;
        let read = |path: &Path| match tree.read(path) {
            Ok(Some(bytes)) => String::from_utf8(bytes).map_err(std::io::Error::other),
            Ok(None) => Err(std::io::ErrorKind::NotFound.into()),
            Err(error) => Err(std::io::Error::other(error)),
        };
        let argv = role.plan.command.argv(read)?;
        let log = self.open_log(&role.plan)?;
        let null = File::open("/dev/null")?;
        let mut places = Places::new([null.into(), log.try_clone()?.into(), log.into()]);
        for (listener, fd) in &role.listeners {
            // A stop had closed it.
            process::listen_long(fd)?;
            places.listener(listener, fd.try_clone()?);
        }
        let (said, say) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        places.named("MINILAB_NOTIFY_FD", say);
        if role.plan.cloud {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            tokio::task::spawn_local(serve_cloud(ours, self.events.clone()));
            places.named(cloud::CLOUD, theirs.into());
        }
        let (env, fds) = places.finish();
        let numbers = (0..fds.len() as i32).collect();
        let run = Run {
            id,
            argv: argv.clone(),
            env,
            places: numbers,
            terminal: false,
            directory: Some("/".into()),
        };
        self.order(&host, &Order::Run(run), &fds);
        tokio::task::spawn_local(await_ready(said, id, self.events.clone()));
        tracing::info!(role = name, host, "Starting");
        let manifest = role.plan.command.watched().and_then(|path| tree.read(path).ok().flatten());
        let role = &mut self.roles[at];
        role.liveness = Liveness::new(manifest.as_deref(), role.launched);
        (role.argv, role.manifest, role.trouble) = (argv, manifest, None);
        Ok(())
    }

    pub(super) fn make_listeners(&mut self, at: usize) -> anyhow::Result<()> {
        let plan = &self.roles[at].plan;
        if self.roles[at].listeners.len() == plan.listeners.len() {
            return Ok(());
        }
        let mut made = Vec::new();
        for listener in &plan.listeners {
            let fd = match listener.at {
                ListenAt::Inside(address) => self.hosts.listen(&plan.host, address)?,
                ListenAt::Machine => self.listener.try_clone()?,
            };
            made.push((listener.name.clone(), fd));
        }
        self.roles[at].listeners = made;
        Ok(())
    }

    /// Keeps for `status`, and for the role's own log, why it cannot be started: each reason once.
    pub(super) fn note_trouble(&mut self, at: usize, why: &str) {
        if self.roles[at].trouble.as_deref() == Some(why) {
            return;
        }
        self.roles[at].trouble = Some(why.to_owned());
        let told = self
            .open_log(&self.roles[at].plan)
            .and_then(|mut log| Ok(writeln!(log, "{} cannot be started: {why}", self.roles[at].plan.name)?));
        if let Err(error) = told {
            tracing::warn!(error = format!("{error:#}"), "Cannot write a role's log");
        }
    }

    pub(super) fn open_log(&self, plan: &RolePlan) -> anyhow::Result<File> {
        let path = self.lab.log(&plan.name, &plan.host);
        let how = OpenOptions::new().append(true).create(true).mode(0o644).open(&path);
        how.with_context(|| format!("open {}", path.display()))
    }
}

/// Descriptors of a role and the environment that names them.
struct Places {
    fds: Vec<OwnedFd>,
    env: Vec<(String, String)>,
    listeners: Vec<String>,
}

impl Places {
    fn new(stdio: [OwnedFd; 3]) -> Places {
        Places { fds: stdio.into(), env: hosts::environment(), listeners: Vec::new() }
    }

    /// Listeners come first, from descriptor 3 on.
    fn listener(&mut self, name: &str, fd: OwnedFd) {
        debug_assert_eq!(self.fds.len() as i32, FIRST_LISTENER + self.listeners.len() as i32);
        self.fds.push(fd);
        self.listeners.push(name.to_owned());
    }

    fn named(&mut self, variable: &str, fd: OwnedFd) {
        self.env.push((variable.into(), self.fds.len().to_string()));
        self.fds.push(fd);
    }

    fn finish(mut self) -> (Vec<(String, String)>, Vec<OwnedFd>) {
        if !self.listeners.is_empty() {
            self.env.push(("LISTEN_FDS".into(), self.listeners.len().to_string()));
            self.env.push(("LISTEN_FDNAMES".into(), self.listeners.join(":")));
        }
        (self.env, self.fds)
    }
}

/// Waits for a run's `READY=1`.
async fn await_ready(said: OwnedFd, id: u64, events: UnboundedSender<Event>) {
    let Ok(said) = pipe::Receiver::from_owned_fd(said) else { return };
    let mut lines = BufReader::new(said).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "READY=1" {
            let _ = events.send(Event::Ready { id });
        }
    }
}

/// Serves one controller manager's cloud connection.
async fn serve_cloud(stream: std::os::unix::net::UnixStream, events: UnboundedSender<Event>) {
    let Ok(stream) = tokio::net::UnixStream::from_std(stream) else { return };
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let outcome = match cloud::read(&line) {
            Ok(routes) => {
                let (done, outcome) = oneshot::channel();
                let _ = events.send(Event::Routes { routes, done });
                outcome.await.unwrap_or_else(|_| Err("the lab is ending".into()))
            }
            Err(error) => Err(error.to_string()),
        };
        if write.write_all(cloud::answer(outcome).as_bytes()).await.is_err() {
            return;
        }
    }
}
