//! The supervisor's loop: events in, roles' lives stepped, effects carried out.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::SupervisorError;
use super::control::{self, Caller, refusal};
use super::hosts::Hosts;
use super::manifests::Manifests;
use super::requests::{Waiter, text};
use super::role::{Effect, Input, State};
use super::start::Role;
use crate::lab::cloud;
use crate::lab::files::Tree;
use crate::lab::order::{Exit, Notice, Order};
use crate::lab::plan::{BOOTSTRAP, KUBELET_CONF, Plan};
use crate::lab::protocol::{Reply, Request};
use crate::lab::state::LabDir;
use crate::sys::packet::{PacketListener, PacketSocket};
use crate::sys::process;
use crate::sys::ready::Readable;

/// How long `down` lets roles finish.
const DOWN_GRACE: Duration = Duration::from_secs(2);

/// Everything that can happen.
pub enum Event {
    /// From a host's init, known by its pid.
    Notice {
        host: String,
        init: i32,
        notice: Notice,
        fds: Vec<OwnedFd>,
    },
    /// A role's run serves.
    Ready {
        id: u64,
    },
    /// The route controller wants these routes.
    Routes {
        routes: cloud::Routes,
        done: oneshot::Sender<Result<(), String>>,
    },
    Asked {
        request: Request,
        fds: Vec<OwnedFd>,
        caller: Caller,
    },
    Left {
        caller: u64,
    },
    /// How a liveness probe of a role's run went.
    Probed {
        id: u64,
        asked: Instant,
        outcome: Result<(), String>,
    },
}

/// The lab's one process that knows it all.
pub struct Supervisor {
    pub(super) lab: LabDir,
    pub(super) hosts: Hosts,
    pub(super) roles: Vec<Role>,
    /// The machine's listener.
    pub(super) listener: OwnedFd,
    pub(super) port: u16,
    pub(super) launch: Option<PacketSocket>,
    pub(super) begun: Instant,
    pub(super) events: UnboundedSender<Event>,
    pub(super) inbox: Option<UnboundedReceiver<Event>>,
    pub(super) waiters: Vec<Waiter>,
    /// Who waits for which host's end.
    pub(super) unplugged: Vec<(String, Caller)>,
    pub(super) sessions: BTreeMap<u64, (Caller, String)>,
    /// Who is changing files: manifests are not heeded until it has gone.
    pub(super) held: Option<u64>,
    pub(super) next_id: u64,
    /// Set when everything is to end.
    pub(super) ending: Option<Instant>,
}

impl Supervisor {
    pub fn new(
        lab: LabDir,
        hosts: Hosts,
        plan: &Plan,
        listener: OwnedFd,
        launch: PacketSocket,
        begun: Instant,
    ) -> anyhow::Result<Supervisor> {
        let (events, inbox) = unbounded_channel();
        let roles = plan.roles().map(|plan| Role::new(plan.clone())).collect();
        let copy = std::net::TcpListener::from(listener.try_clone()?);
        Ok(Supervisor {
            lab,
            hosts,
            roles,
            port: copy.local_addr()?.port(),
            listener,
            launch: Some(launch),
            begun,
            events,
            inbox: Some(inbox),
            waiters: Vec::new(),
            unplugged: Vec::new(),
            sessions: BTreeMap::new(),
            held: None,
            next_id: 1,
            ending: None,
        })
    }

    /// Runs until the lab is to end.
    pub async fn run(mut self, control: PacketListener, life: OwnedFd) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut children = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut keeper = pipe::Receiver::from_owned_fd(life)?;
        let manifests = Manifests::watch(&self.manifest_directories())?;
        self.adopt_manifests();
        let mut inbox = self.inbox.take().context("the supervisor runs once")?;
        for plan in self.hosts.plans().to_vec() {
            self.listen_to(&plan.name);
        }
        let callers = tokio::task::spawn_local(control::serve(control, self.events.clone()));
        let mut byte = [0];
        while !self.over() {
            let wake = self.next_wake();
            tokio::select! {
                Some(event) = inbox.recv() => self.take(event)?,
                _ = children.recv() => self.reap()?,
                _ = terminate.recv() => self.end(),
                _ = keeper.read(&mut byte) => anyhow::bail!("the keeper is gone"),
                changed = manifests.changed() => {
                    changed.context("watch the manifests")?;
                    self.read_manifests();
                }
                () = tokio::time::sleep_until(wake.into()) => self.tick(),
            }
            self.advance();
            self.answer_waiters();
            self.forget_leaving();
            self.report_up();
        }
        callers.abort();
        Ok(())
    }

    fn over(&self) -> bool {
        self.ending.is_some_and(|deadline| {
            Instant::now() >= deadline || self.roles.iter().all(|role| !role.life.is_running())
        })
    }

    fn next_wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let lives = self.roles.iter().filter_map(|role| role.life.wakes());
        let probes = self.roles.iter().filter_map(|role| role.liveness.wakes(role.life.state));
        lives.chain(probes).chain(self.ending).min().unwrap_or(far)
    }

    pub(super) fn end(&mut self) {
        self.ending.get_or_insert(Instant::now() + DOWN_GRACE);
        for at in 0..self.roles.len() {
            self.step(at, Input::Stop);
        }
    }

    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Notice { host, init, notice, fds } => {
                // One from an init that has since been replaced means nothing any more.
                if self.hosts.get(&host).is_some_and(|running| running.pid == init) {
                    self.heed(&host, notice, fds)?;
                }
            }
            Event::Ready { id } => {
                if let Some(at) = self.roles.iter().position(|role| role.id == id) {
                    self.step(at, Input::Ready);
                    self.report_ready(at);
                    self.forget_bootstrap(at);
                }
            }
            Event::Routes { routes, done } => {
                let outcome = self.hosts.set_routes(routes).map_err(|error| text(&error));
                let _ = done.send(outcome);
            }
            Event::Asked { request, fds, caller } => self.serve(request, fds, caller),
            Event::Left { caller } => self.leave(caller),
            Event::Probed { id, asked, outcome } => self.probed(id, asked, &outcome),
        }
        Ok(())
    }

    /// A node that has its own credential loses the one it joined with, as `kubeadm join` ends by removing it.
    fn forget_bootstrap(&self, at: usize) {
        let plan = &self.roles[at].plan;
        if plan.name != "kubelet" {
            return;
        }
        let forgotten =
            Tree::of(&self.lab, &plan.host).and_then(|tree| match tree.read(Path::new(KUBELET_CONF))? {
                Some(_) => tree.remove(Path::new(BOOTSTRAP)),
                None => Ok(()),
            });
        if let Err(error) = forgotten {
            tracing::warn!(
                host = plan.host,
                error = format!("{error}"),
                "Could not remove the bootstrap kubeconfig"
            );
        }
    }

    /// What an init says.
    fn heed(&mut self, host: &str, notice: Notice, fds: Vec<OwnedFd>) -> Result<(), SupervisorError> {
        let of_role = |id: u64| self.roles.iter().position(|role| role.id == id);
        match notice {
            Notice::Built => {
                if let Some(running) = self.hosts.get_mut(host) {
                    running.built = true;
                }
            }
            // A host that comes to a running lab must not take the lab with it.
            Notice::NotBuilt { error } if self.launch.is_none() => {
                tracing::error!(host, error, "A host could not be made");
            }
            Notice::NotBuilt { error } => {
                return Err(SupervisorError::BuildHost { host: host.to_owned(), error });
            }
            Notice::Started { id, pid } => match of_role(id) {
                Some(at) => self.roles[at].pid = Some(pid),
                None => {
                    if let Some((caller, _)) = self.sessions.get(&id) {
                        caller.answer(&Reply::Started { pid }, fds.first());
                    }
                }
            },
            Notice::NotStarted { id, error } => match of_role(id) {
                Some(at) => {
                    tracing::warn!(role = self.roles[at].plan.name, host, %error, "Cannot start");
                    self.note_trouble(at, &error.to_string());
                    self.step(at, Input::NotStarted);
                    self.report_ended(at, &error);
                }
                None => {
                    if let Some((caller, _)) = self.sessions.remove(&id) {
                        caller.answer(&Reply::NotStarted { error }, None);
                    }
                }
            },
            Notice::Exited { id, exit } => match of_role(id) {
                Some(at) => self.exited(at, exit),
                None => {
                    if let Some((caller, _)) = self.sessions.remove(&id) {
                        caller.answer(&Reply::Exited { code: exit.code() }, None);
                    }
                }
            },
        }
        Ok(())
    }

    fn exited(&mut self, at: usize, exit: Exit) {
        let role = &mut self.roles[at];
        role.pid = None;
        let finished_before = role.life.is_ready();
        tracing::info!(role = role.plan.name, host = role.plan.host, %exit, "A role ended");
        let wanted = matches!(role.life.state, State::Stopping { .. });
        self.step(at, Input::Exited(exit));
        let ready = self.roles[at].life.is_ready();
        match ready && !finished_before {
            true => self.report_ready(at),
            false if !wanted => self.report_ended(at, &exit.to_string()),
            false => {}
        }
    }

    /// Collects inits that ended. The roles of their hosts wait until the host is started again.
    fn reap(&mut self) -> anyhow::Result<()> {
        loop {
            let pid = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => pid,
                Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(()),
                Ok(_) | Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(host) = self.hosts.of_init(pid.as_raw()) else { continue };
            tracing::info!(host, "A host ended");
            // Nobody pulls a plug on purpose before the lab is up.
            let early = self.launch.is_some();
            anyhow::ensure!(!early, "host {host} ended while the lab was starting; see the lab's logs");
            self.hosts.gone(&host);
            self.unplugged.extract_if(.., |(of, _)| *of == host).for_each(|(_, caller)| {
                caller.answer(&Reply::Done, None);
            });
            for at in 0..self.roles.len() {
                if self.roles[at].plan.host == host {
                    let role = &mut self.roles[at];
                    (role.pid, role.id) = (None, 0);
                    role.listeners.clear();
                    self.step(at, Input::HostGone);
                }
            }
            self.sessions.retain(|_, (caller, of)| {
                if *of == host {
                    caller.answer(&refusal("the host ended"), None);
                }
                *of != host
            });
        }
    }

    fn tick(&mut self) {
        for at in 0..self.roles.len() {
            self.step(at, Input::Time);
            self.probe(at);
        }
    }

    /// Starts what has become possible.
    fn advance(&mut self) {
        if self.ending.is_some() {
            return;
        }
        for at in 0..self.roles.len() {
            let role = &self.roles[at];
            let there = self.hosts.get(&role.plan.host).is_some_and(|host| host.built);
            // A need is a role's name, or ROLE@HOST.
            let served = |need: &String| {
                let (name, host) =
                    need.split_once('@').map_or((need.as_str(), None), |(name, host)| (name, Some(host)));
                let meant =
                    |other: &Role| other.plan.name == name && host.is_none_or(|host| other.plan.host == host);
                self.roles.iter().any(|other| meant(other) && other.life.is_ready())
            };
            // What it needed for its first start it may outlive.
            if role.life.state == State::Waiting
                && there
                && (role.life.ever_ready || role.plan.needs.iter().all(served))
            {
                // An administrator took its manifest away: then it is not to run.
                let input = if self.has_command(at) { Input::Possible } else { Input::Stop };
                self.step(at, input);
            }
        }
    }

    pub(super) fn step(&mut self, at: usize, input: Input) {
        match self.roles[at].life.step(Instant::now(), input) {
            Some(Effect::Launch) => {
                if let Err(error) = self.launch(at) {
                    let error = format!("{error:#}");
                    tracing::warn!(role = self.roles[at].plan.name, error, "Cannot start");
                    self.note_trouble(at, &error);
                    self.step(at, Input::NotStarted);
                    self.report_ended(at, &error);
                }
            }
            Some(Effect::Signal(signal)) => self.signal(at, signal),
            None => {}
        }
        if self.roles[at].life.state == State::Stopped {
            self.refuse_callers(at);
        }
    }

    /// Nobody is coming back for those who would queue: they are told at once, as on a real machine. Between
    /// two runs of a role that is restarted they wait.
    fn refuse_callers(&self, at: usize) {
        for (name, fd) in &self.roles[at].listeners {
            if let Err(error) = process::stop_listening(fd) {
                tracing::warn!(%error, listener = name, "Cannot close a listener");
            }
        }
    }

    fn signal(&self, at: usize, signal: Signal) {
        let role = &self.roles[at];
        let order = Order::Signal { id: role.id, signal: signal as i32, group: false };
        self.order(&role.plan.host, &order, &[]);
    }

    pub(super) fn order(&self, host: &str, order: &Order, fds: &[OwnedFd]) {
        let Some(running) = self.hosts.get(host) else { return };
        let bytes = serde_json::to_vec(order).expect("an order has only string keys");
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if let Err(error) = running.init.send(&bytes, &fds) {
            // Its end is noticed by SIGCHLD.
            tracing::warn!(%error, host, "Cannot reach the host's init");
        }
    }

    /// Hears a host's init from now on.
    pub(super) fn listen_to(&mut self, host: &str) {
        let Some(running) = self.hosts.get(host) else { return };
        let (socket, init, host) = (running.init.clone(), running.pid, host.to_owned());
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let Ok(ready) = Readable::of(&*socket) else { return };
            while let Ok(Some((bytes, fds))) = ready.until(|| socket.try_receive()).await {
                let Ok(notice) = serde_json::from_slice(&bytes) else { continue };
                let _ = events.send(Event::Notice { host: host.clone(), init, notice, fds });
            }
        });
    }
}
