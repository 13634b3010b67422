//! The supervisor's loop: events in, roles' lives stepped, effects carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::control::{self, Caller, Shared, refusal};
use super::hosts::{self, Hosts};
use super::manifests::Manifests;
use super::role::{Effect, Input, Life};
use super::{SupervisorError, control::next};
use crate::lab::cloud;
use crate::lab::files::Tree;
use crate::lab::order::{Exit, Notice, Order, Run};
use crate::lab::plan::{ListenAt, Plan, RolePlan};
use crate::lab::protocol::{self, Exec, Reply, Report, Request, RoleStatus, Status};
use crate::lab::state::LabDir;
use crate::sys::inherit::FIRST_LISTENER;
use crate::sys::packet::{PacketListener, PacketSocket};

/// A lab whose role ends this often before it ever served will not come up.
const HOPELESS: u32 = 5;
/// How long `down` lets roles finish.
const DOWN_GRACE: Duration = Duration::from_secs(2);
/// Names of sessions start here, names of role runs are below.
const SESSIONS: u64 = 1 << 48;

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
}

struct Role {
    plan: RolePlan,
    life: Life,
    /// Of the present run.
    id: u64,
    pid: Option<i32>,
    argv: Vec<String>,
    /// What its manifest said when it was last looked at.
    manifest: Option<Vec<u8>>,
    /// Kept across its restarts.
    listeners: Vec<(String, OwnedFd)>,
}

/// Who waits for roles to serve, or to end.
struct Waiter {
    caller: Caller,
    /// Which, and how often each had been restarted.
    roles: Vec<(usize, u32)>,
    serving: bool,
}

/// The lab's one process that knows it all.
pub struct Supervisor {
    lab: LabDir,
    hosts: Hosts,
    roles: Vec<Role>,
    /// The machine's listener.
    listener: OwnedFd,
    port: u16,
    launch: Option<PacketSocket>,
    begun: Instant,
    events: UnboundedSender<Event>,
    inbox: Option<UnboundedReceiver<Event>>,
    waiters: Vec<Waiter>,
    sessions: BTreeMap<u64, (Caller, String)>,
    next_id: u64,
    /// Set when everything is to end.
    ending: Option<Instant>,
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
            sessions: BTreeMap::new(),
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
                () = tokio::time::sleep_until(wake.into()) => self.tick()?,
            }
            self.advance()?;
            self.answer_waiters();
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
        self.roles.iter().filter_map(|role| role.life.wakes()).chain(self.ending).min().unwrap_or(far)
    }

    fn end(&mut self) {
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
                }
            }
            Event::Routes { routes, done } => {
                let outcome = self.hosts.set_routes(routes).map_err(|error| text(&error));
                let _ = done.send(outcome);
            }
            Event::Asked { request, fds, caller } => self.serve(request, fds, caller),
            Event::Left { caller } => self.leave(caller),
        }
        Ok(())
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
                    self.step(at, Input::NotStarted);
                    self.report_ended(at, &error);
                }
                None => {
                    if let Some((caller, _)) = self.sessions.remove(&id) {
                        caller.answer(&refusal(error), None);
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
        let wanted = matches!(role.life.state, super::role::State::Stopping { .. });
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
            let built = self.hosts.get(&host).is_some_and(|running| running.built);
            anyhow::ensure!(built, "host {host} ended while it was being made; see the lab's logs");
            self.hosts.gone(&host);
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

    fn tick(&mut self) -> anyhow::Result<()> {
        (0..self.roles.len()).for_each(|at| self.step(at, Input::Time));
        Ok(())
    }

    /// Starts what has become possible.
    fn advance(&mut self) -> anyhow::Result<()> {
        if self.ending.is_some() {
            return Ok(());
        }
        for at in 0..self.roles.len() {
            let role = &self.roles[at];
            let there = self.hosts.get(&role.plan.host).is_some_and(|host| host.built);
            let served = |need: &String| {
                self.roles.iter().any(|other| other.plan.name == *need && other.life.is_ready())
            };
            // What it needed for its first start it may outlive.
            if there && (role.life.ever_ready || role.plan.needs.iter().all(served)) {
                self.step(at, Input::Possible);
            }
        }
        Ok(())
    }

    fn step(&mut self, at: usize, input: Input) {
        match self.roles[at].life.step(Instant::now(), input) {
            Some(Effect::Launch) => {
                if let Err(error) = self.launch(at) {
                    let error = format!("{error:#}");
                    tracing::warn!(role = self.roles[at].plan.name, error, "Cannot start");
                    self.step(at, Input::NotStarted);
                    self.report_ended(at, &error);
                }
            }
            Some(Effect::Signal(signal)) => self.signal(at, signal),
            None => {}
        }
    }

    fn signal(&self, at: usize, signal: Signal) {
        let role = &self.roles[at];
        let order = Order::Signal { id: role.id, signal: signal as i32, group: false };
        self.order(&role.plan.host, &order, &[]);
    }

    fn order(&self, host: &str, order: &Order, fds: &[OwnedFd]) {
        let Some(running) = self.hosts.get(host) else { return };
        let bytes = serde_json::to_vec(order).expect("an order has only string keys");
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if let Err(error) = running.init.send(&bytes, &fds) {
            // Its end is noticed by SIGCHLD.
            tracing::warn!(%error, host, "Cannot reach the host's init");
        }
    }

    /// Starts a role's process with everything it inherits.
    fn launch(&mut self, at: usize) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        self.roles[at].id = id;
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
        (role.argv, role.manifest) = (argv, manifest);
        Ok(())
    }

    fn make_listeners(&mut self, at: usize) -> anyhow::Result<()> {
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

    fn open_log(&self, plan: &RolePlan) -> anyhow::Result<File> {
        let path = self.lab.log(&plan.name, &plan.host);
        let how = OpenOptions::new().append(true).create(true).mode(0o644).open(&path);
        how.with_context(|| format!("open {}", path.display()))
    }

    /// Hears a host's init from now on.
    fn listen_to(&mut self, host: &str) {
        let Some(running) = self.hosts.get(host) else { return };
        let (socket, init, host) = (running.init.clone(), running.pid, host.to_owned());
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let socket = AsyncFd::with_interest(Shared(socket), tokio::io::Interest::READABLE);
            let Ok(socket) = socket else { return };
            while let Ok(Some((bytes, fds))) = next(&socket).await {
                let Ok(notice) = serde_json::from_slice(&bytes) else { continue };
                let _ = events.send(Event::Notice { host: host.clone(), init, notice, fds });
            }
        });
    }

    fn manifest_directories(&self) -> BTreeSet<PathBuf> {
        let watched = |role: &Role| {
            let directory = role.plan.command.watched()?.parent()?.strip_prefix("/").ok()?.to_owned();
            Some(self.lab.host(&role.plan.host).join(directory))
        };
        self.roles.iter().filter_map(watched).collect()
    }

    /// Restarts, stops and starts roles whose manifests changed.
    fn read_manifests(&mut self) {
        for at in 0..self.roles.len() {
            let role = &self.roles[at];
            let Some(path) = role.plan.command.watched() else { continue };
            let Ok(tree) = Tree::of(&self.lab, &role.plan.host) else { continue };
            let Ok(now) = tree.read(path) else { continue };
            if now == role.manifest {
                continue;
            }
            let input = match (&role.manifest, &now) {
                (_, None) => Input::Stop,
                (None, Some(_)) => Input::Start,
                (Some(_), Some(_)) => Input::Restart,
            };
            tracing::info!(role = role.plan.name, ?input, "The manifest changed");
            self.roles[at].manifest = now;
            self.step(at, input);
        }
    }

    // --- what callers ask for ---

    fn serve(&mut self, request: Request, fds: Vec<OwnedFd>, caller: Caller) {
        match request {
            Request::Status => caller.answer(&Reply::Status(self.status()), None),
            Request::Start { role, host } => self.turn(&role, host.as_deref(), Input::Start, caller),
            Request::Stop { role, host } => self.turn(&role, host.as_deref(), Input::Stop, caller),
            Request::Restart { role, host } => self.turn(&role, host.as_deref(), Input::Restart, caller),
            Request::Down => self.end(),
            Request::Exec(exec) => self.exec(exec, fds, caller),
            Request::HostKill { host } => {
                let reply = match self.hosts.get(&host) {
                    Some(running) => match kill(Pid::from_raw(running.pid), Signal::SIGKILL) {
                        Ok(()) => Reply::Done,
                        Err(error) => refusal(error),
                    },
                    None => refusal(SupervisorError::NoHost { host }),
                };
                caller.answer(&reply, None);
            }
            Request::HostStart { host } => {
                let reply = match self.start_host(&host) {
                    Ok(()) => Reply::Done,
                    Err(error) => refusal(text(&error)),
                };
                caller.answer(&reply, None);
            }
        }
    }

    fn start_host(&mut self, host: &str) -> Result<(), SupervisorError> {
        if self.hosts.get(host).is_some() {
            return Ok(());
        }
        self.hosts.start(host)?;
        self.listen_to(host);
        self.hosts.connect(&[host])
    }

    fn turn(&mut self, name: &str, host: Option<&str>, input: Input, caller: Caller) {
        let meant = |role: &Role| role.plan.name == name && host.is_none_or(|host| role.plan.host == host);
        let found: Vec<usize> = (0..self.roles.len()).filter(|at| meant(&self.roles[*at])).collect();
        if found.is_empty() {
            let place = host.map(|host| format!("@{host}")).unwrap_or_default();
            return caller.answer(&refusal(format!("the lab has no role {name}{place}")), None);
        }
        let roles = found.iter().map(|at| (*at, self.roles[*at].life.restarts)).collect();
        found.into_iter().for_each(|at| self.step(at, input));
        self.waiters.push(Waiter { caller, roles, serving: input != Input::Stop });
    }

    fn answer_waiters(&mut self) {
        let roles = &self.roles;
        self.waiters.retain(|waiter| {
            let life = |at: usize| &roles[at].life;
            let done = |at: usize| if waiter.serving { life(at).is_ready() } else { !life(at).is_running() };
            if waiter.roles.iter().all(|(at, _)| done(*at)) {
                waiter.caller.answer(&Reply::Done, None);
                return false;
            }
            let hopeless = |(at, before): &&(usize, u32)| life(*at).restarts > before + HOPELESS;
            if let Some((at, _)) = waiter.roles.iter().find(hopeless) {
                let plan = &roles[*at].plan;
                let error = format!("{}@{} ends again and again; see its log", plan.name, plan.host);
                waiter.caller.answer(&refusal(error), None);
                return false;
            }
            true
        });
    }

    fn exec(&mut self, exec: Exec, fds: Vec<OwnedFd>, caller: Caller) {
        if !self.hosts.get(&exec.host).is_some_and(|host| host.built) {
            return caller.answer(&refusal(SupervisorError::NoHost { host: exec.host }), None);
        }
        let id = SESSIONS + self.next_id;
        self.next_id += 1;
        let mut env = hosts::environment();
        env.extend(exec.env);
        let login = exec.argv.is_empty();
        let run = Run {
            id,
            argv: if login { hosts::shell() } else { exec.argv },
            env,
            places: (0..fds.len() as i32).collect(),
            terminal: exec.terminal,
            directory: Some("/root".into()),
        };
        self.order(&exec.host, &Order::Run(run), &fds);
        self.sessions.insert(id, (caller, exec.host));
    }

    /// A caller has gone: its command is hung up on, as when a terminal closes.
    fn leave(&mut self, caller: u64) {
        self.waiters.retain(|waiter| waiter.caller.id != caller);
        let left: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, (of, _))| of.id == caller)
            .map(|(id, (_, host))| (*id, host.clone()))
            .collect();
        for (id, host) in left {
            self.order(&host, &Order::Signal { id, signal: Signal::SIGHUP as i32, group: true }, &[]);
            self.sessions.remove(&id);
        }
    }

    fn status(&self) -> Status {
        let role = |role: &Role| RoleStatus {
            name: role.plan.name.clone(),
            host: role.plan.host.clone(),
            pid: None,
            host_pid: role.pid,
            ready: role.life.is_ready(),
            state: role.life.word().into(),
            restarts: role.life.restarts,
            argv: role.argv.clone(),
        };
        Status {
            hosts: self.hosts.status(),
            roles: self.roles.iter().map(role).collect(),
            port: self.port,
            ids: mapped_ids(),
        }
    }

    // --- what `up` hears ---

    fn report(&mut self, report: &Report) {
        if let Some(launch) = &self.launch
            && protocol::send(launch, report).is_err()
        {
            self.launch = None;
        }
    }

    fn micros(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    fn report_ready(&mut self, at: usize) {
        let plan = &self.roles[at].plan;
        let (role, host) = (plan.name.clone(), plan.host.clone());
        self.report(&Report::Ready { role, host, micros: self.micros() });
    }

    fn report_ended(&mut self, at: usize, how: &str) {
        let role = &self.roles[at];
        if role.life.ever_ready || self.launch.is_none() {
            return;
        }
        let (name, host) = (role.plan.name.clone(), role.plan.host.clone());
        let (log, false_starts) = (self.lab.log(&name, &host), role.life.false_starts);
        let how = match last_line(&log) {
            Some(line) => format!("{how}: {line}"),
            None => how.to_owned(),
        };
        if false_starts >= HOPELESS {
            let error = format!("{name} in {host} does not start: {how}");
            let remedy = Some(format!("see {}", log.display()));
            self.report(&Report::Failed { error, remedy });
        } else {
            self.report(&Report::Ended { role: name, host, how, log });
        }
    }

    fn report_up(&mut self) {
        if self.launch.is_some() && self.roles.iter().all(|role| role.life.is_ready()) {
            self.report(&Report::Up { micros: self.micros() });
            self.launch = None;
        }
    }
}

impl Role {
    fn new(plan: RolePlan) -> Role {
        let life = Life::new(plan.one_shot);
        Role { plan, life, id: 0, pid: None, argv: Vec::new(), manifest: None, listeners: Vec::new() }
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

/// An error and its causes on one line.
fn text(error: &SupervisorError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The last line of a log, for an error's text.
fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2048))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

/// How many ids this user namespace has.
fn mapped_ids() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok()).sum()
}
