//! The shim: holds the sandbox and its containers, in one loop over everything that can happen.
//!
//! Single-threaded and without a runtime: it forks containers, it must be small (one a pod), and it must be
//! the parent that their death is tied to. Every change is on disk before anybody is told.

mod requests;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::attach::Attachment;
use super::connection::Connection;
use super::container::Container;
use super::log::now;
use super::protocol::{Answer, Directories, SandboxPaths, State};
use super::record::{self, Alive};
use super::sandbox::Sandbox;
use super::spec::{ContainerPhase, SandboxSpec, SandboxStatus};

/// A pod's shim.
pub struct Shim {
    sandbox: Sandbox,
    ready: bool,
    created_at: String,
    number: u64,
    containers: Vec<Container>,
    listener: UnixListener,
    signals: SignalFd,
    connections: Vec<Connection>,
    /// Who waits for a container's end: its id, the connection's number and the request's.
    waiting: Vec<(String, u64, u64)>,
    commands: Vec<Running>,
    ending: bool,
    next_connection: u64,
    _alive: Alive,
}

/// A command that runs in a container beside its main program.
struct Running {
    pid: Pid,
    /// Who is told of its end: the connection's number and the request's.
    asker: (u64, u64),
    leash: bool,
}

/// What became ready in one turn.
enum Event {
    Accept,
    Signal,
    Connection(usize),
    Output(usize, usize),
    /// One that was behind can go on; all are looked at in every turn.
    Listeners,
}

impl Shim {
    /// Makes the sandbox; on failure nothing is left of it.
    pub fn make(id: &str, spec: SandboxSpec) -> anyhow::Result<Shim> {
        let paths = Directories::default().sandbox(id);
        let result = Shim::make_in(id, spec, paths.clone());
        if result.is_err() {
            // The failure above is the one to report.
            let _ = std::fs::remove_dir_all(&paths.run);
            let _ = std::fs::remove_dir_all(&paths.state);
        }
        result
    }

    fn make_in(id: &str, spec: SandboxSpec, paths: SandboxPaths) -> anyhow::Result<Shim> {
        std::fs::create_dir_all(&paths.run)?;
        let alive = Alive::claim(&paths.lock())?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let sandbox = Sandbox::make(id, spec, paths.clone())?;
        let listener = UnixListener::bind(paths.socket())?;
        listener.set_nonblocking(true)?;
        let shim = Shim {
            sandbox,
            ready: true,
            created_at: now(),
            number: 1,
            containers: Vec::new(),
            listener,
            signals,
            connections: Vec::new(),
            waiting: Vec::new(),
            commands: Vec::new(),
            ending: false,
            next_connection: 1,
            _alive: alive,
        };
        record::save(&shim.sandbox.paths, &shim.state())?;
        Ok(shim)
    }

    fn id(&self) -> String {
        self.sandbox.paths.state.file_name().map(|name| name.to_string_lossy().into()).unwrap_or_default()
    }

    pub fn state(&self) -> State {
        State {
            number: self.number,
            sandbox: SandboxStatus {
                id: self.id(),
                spec: self.sandbox.spec.clone(),
                ready: self.ready,
                created_at: self.created_at.clone(),
                containers: self.containers.iter().map(|container| container.status.clone()).collect(),
            },
        }
    }

    /// Runs until the sandbox is stopped.
    pub fn serve(mut self) -> io::Result<()> {
        loop {
            for event in self.wait()? {
                match event {
                    Event::Accept => self.accept(),
                    Event::Signal => self.reap(),
                    Event::Connection(index) => self.hear(index),
                    Event::Output(container, stream) => self.output(container, stream),
                    Event::Listeners => {}
                }
            }
            self.kill_overdue();
            self.part();
            if self.ending && self.over() {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<Event>> {
        let mut events = vec![Event::Accept, Event::Signal];
        let input = PollFlags::POLLIN;
        let mut fds =
            vec![PollFd::new(self.listener.as_fd(), input), PollFd::new(self.signals.as_fd(), input)];
        for (index, connection) in self.connections.iter().enumerate() {
            fds.push(PollFd::new(connection.as_fd(), connection.interest()));
            events.push(Event::Connection(index));
        }
        for (index, container) in self.containers.iter().enumerate() {
            for (stream, output) in container.streams.iter().enumerate() {
                if !container.is_held(output) {
                    fds.push(PollFd::new(output.fd.as_fd(), input));
                    events.push(Event::Output(index, stream));
                }
            }
        }
        let mut deadlines: Vec<Instant> =
            self.containers.iter().filter_map(|container| container.deadline).collect();
        for attachment in self.containers.iter().flat_map(|container| &container.attachments) {
            for (pipe, until) in attachment.behind() {
                fds.push(PollFd::new(pipe, PollFlags::POLLOUT));
                events.push(Event::Listeners);
                deadlines.extend(until);
            }
        }
        let deadline = deadlines.into_iter().min();
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            // Rounded up, so that it does not wake before the deadline and spin.
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        Ok(events.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(event, _)| event).collect())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            match Connection::new(self.next_connection, stream) {
                Ok(connection) => self.connections.push(connection),
                Err(error) => tracing::warn!(%error, "cannot serve a connection"),
            }
            self.next_connection += 1;
        }
    }

    /// Takes a container's output. Events name streams by place, and places move when a stream ends in the
    /// same turn: whoever is meant then is only looked at a turn early or late.
    fn output(&mut self, container: usize, stream: usize) {
        let Some(container) = self.containers.get_mut(container) else { return };
        if container.streams.get(stream).is_some_and(|stream| container.is_held(stream)) {
            return;
        }
        if stream < container.streams.len() && !container.drain(stream) {
            container.streams.remove(stream);
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut changed = false;
        loop {
            let (pid, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code, None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32, Some(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => continue,
            };
            changed |= self.ended(pid, code, signal);
        }
        if changed {
            self.changed();
        }
    }

    fn ended(&mut self, pid: Pid, code: i32, signal: Option<i32>) -> bool {
        if pid == self.sandbox.pause {
            self.ready = false;
            return true;
        }
        if let Some(place) = self.commands.iter().position(|command| command.pid == pid) {
            let (connection, call) = self.commands.swap_remove(place).asker;
            self.tell(connection, &Answer::ended(call, code));
            return false;
        }
        let Some(container) = self.containers.iter_mut().find(|container| container.pid() == Some(pid))
        else {
            return false;
        };
        container.exited(code, signal);
        let told: Vec<(u64, u64)> =
            container.attachments.iter().map(|session| (session.connection, session.call)).collect();
        for (connection, call) in told {
            self.tell(connection, &Answer::ended(call, code));
        }
        true
    }

    /// Answers on a connection that may have ended.
    fn tell(&mut self, connection: u64, answer: &Answer) {
        if let Some(connection) = self.connections.iter_mut().find(|one| one.number == connection) {
            connection.send(answer);
        }
    }

    /// Lets those go who have left, and what was on their leash; flushes to those who listen.
    fn part(&mut self) {
        let gone: Vec<u64> =
            self.connections.iter().filter(|one| one.closed()).map(|one| one.number).collect();
        self.connections.retain(|connection| !connection.closed());
        for command in self.commands.iter().filter(|one| one.leash && gone.contains(&one.asker.0)) {
            let _ = nix::sys::signal::kill(command.pid, Signal::SIGKILL);
        }
        for container in &mut self.containers {
            container.attachments.retain(|session| !gone.contains(&session.connection));
            let over = container.status.phase == ContainerPhase::Exited;
            for session in &mut container.attachments {
                if over && !self.ready {
                    session.farewell();
                }
                if over { session.finish() } else { session.flush() }
            }
        }
    }

    /// Puts the new state on disk, then tells everyone.
    fn changed(&mut self) {
        self.number += 1;
        let state = self.state();
        if let Err(error) = record::save(&self.sandbox.paths, &state) {
            tracing::warn!(%error, "cannot write the sandbox's record");
        }
        for connection in self.connections.iter_mut().filter(|connection| connection.watches) {
            connection.send(&Answer::state(0, state.clone()));
        }
        let running = |id: &str| {
            let ours = self.containers.iter().find(|container| container.status.id == id);
            ours.is_some_and(|container| container.status.phase == ContainerPhase::Running)
        };
        let (still, done): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(id, _, _)| running(id));
        self.waiting = still;
        for (_, connection, call) in done {
            self.tell(connection, &Answer::state(call, state.clone()));
        }
    }

    fn kill_overdue(&mut self) {
        let now = Instant::now();
        for container in &mut self.containers {
            if container.deadline.is_some_and(|deadline| deadline <= now) {
                container.kill();
            }
        }
    }

    /// Whether everything has ended; then says goodbye.
    fn over(&mut self) -> bool {
        let running =
            self.containers.iter().any(|container| container.status.phase == ContainerPhase::Running);
        let heard = self.containers.iter().flat_map(|container| &container.attachments);
        if running || self.ready || heard.flat_map(Attachment::behind).next().is_some() {
            return false;
        }
        let state = self.state();
        for connection in &mut self.connections {
            if let Some(id) = connection.goodbye {
                connection.send(&Answer::state(id, state.clone()));
            }
            connection.flush();
        }
        true
    }
}
