//! One container as its shim holds it: its process, its pipes, its log, its end.
//!
//! ```text
//!            start            exit or start error
//!  (nothing) ─────► Running ─────────────────────► Exited ──► removed
//!                      │  stop: SIGTERM, then SIGKILL at the deadline
//! ```

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::attach::Attachment;
use super::command;
use super::identity;
use super::limits::Group;
use super::log::{Log, Source, now};
use super::process::{Entry, Launch, Program};
use super::program::Errand;
use super::protocol::{Given, Refusal, RefusalKind};
use super::recipe;
use super::rights::User;
use super::sandbox::{Pids, Sandbox};
use super::spec::{AttachSpec, ContainerPhase, ContainerSpec, ContainerStatus, ExecSpec};
use super::streams::Wanted;
use crate::node::image;
use crate::sys::container;

/// What the pipes of a command hold: large, because bytes go through them in bulk.
const ROOM: i32 = 256 * 1024;

/// How much output is taken from one stream before the others get their turn.
const TURN: usize = 64 * 1024;

#[derive(Debug)]
pub struct Container {
    pub status: ContainerStatus,
    pub streams: Vec<Stream>,
    /// Kept for whoever attaches; closing it is end of file for the program. With a terminal, its outer end.
    stdin: Option<OwnedFd>,
    stdin_once: bool,
    /// Another copy of the terminal's outer end.
    terminal: Option<OwnedFd>,
    /// Who listens.
    pub attachments: Vec<Attachment>,
    /// What a command in it starts from.
    program: Program,
    user: Option<User>,
    log: Option<Log>,
    group: Option<Group>,
    /// The mount namespace, by which its processes are known where pids are shared.
    namespace: Option<std::path::PathBuf>,
    /// When a stop becomes a kill.
    pub deadline: Option<Instant>,
}

/// One of a container's outputs.
#[derive(Debug)]
pub struct Stream {
    pub fd: OwnedFd,
    source: Source,
}

impl Container {
    /// Makes and starts it. A container whose program could not be run is one too: it has ended with 128.
    pub fn start(
        id: &str,
        spec: &ContainerSpec,
        sandbox: &Sandbox,
        target: Option<OwnedFd>,
    ) -> Result<(Container, Option<Refusal>), Refusal> {
        let image = image::resolve(&spec.image)
            .map_err(|error| Refusal::new(RefusalKind::Create, error.to_string()))?;
        identity::verify_non_root(&spec.security, &image.config.user, &sandbox.spec, &spec.name)?;
        let log_path = sandbox.spec.log_directory.join(&spec.log_path);
        let log = Log::open(&log_path).map_err(|error| Refusal::create("open the log file", error))?;
        let group = Group::with(id, &spec.limits).map_err(|error| Refusal::create("set limits", error))?;
        let root = recipe::root(id, spec, sandbox, &image);
        let program = recipe::program(spec, sandbox, &image)?;
        let shared = sandbox.pids != Pids::Own || target.is_some();
        let launch = Launch {
            sandbox,
            program: &program,
            entry: Entry::New { root: &root, image_user: &image.config.user, target },
            errand: Errand::Create,
            group: group.as_ref(),
            wanted: Wanted { stdin: spec.stdin, stdout: true, stderr: true, room: None },
        };
        let created_at = now();
        let started = launch.start()?;
        let mut container = Container {
            status: ContainerStatus {
                id: id.to_owned(),
                name: spec.name.clone(),
                attempt: spec.attempt,
                phase: ContainerPhase::Running,
                pid: Some(started.pid.as_raw() as u32),
                created_at,
                started_at: Some(now()),
                finished_at: None,
                exit_code: None,
                signal: None,
                reason: None,
                message: None,
                image: image.reference.clone(),
                image_id: image.digest_reference(),
                log_path,
            },
            streams: Vec::new(),
            stdin: started.streams.stdin,
            stdin_once: spec.stdin_once,
            terminal: None,
            attachments: Vec::new(),
            program,
            user: started.user,
            log: Some(log),
            group,
            namespace: mount_namespace(started.pid).filter(|_| shared),
            deadline: None,
        };
        let failed = |error: io::Error| Refusal::create("prepare the streams", error);
        container
            .take_streams(started.terminal, started.streams.stdout, started.streams.stderr, spec.stdin)
            .map_err(failed)?;
        if let Some(refusal) = &started.failure {
            let _ = nix::sys::wait::waitpid(started.pid, None);
            container.end(128, None, "StartError", Some(refusal.message.clone()));
        }
        Ok((container, started.failure))
    }

    fn take_streams(
        &mut self,
        terminal: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
        stdin: bool,
    ) -> io::Result<()> {
        if let Some(terminal) = &terminal {
            self.terminal = Some(terminal.try_clone()?);
            self.stdin = stdin.then(|| terminal.try_clone()).transpose()?;
        }
        let outputs = [(terminal.or(stdout), Source::Stdout), (stderr, Source::Stderr)];
        for (fd, source) in outputs {
            self.streams.extend(fd.map(|fd| Stream { fd, source }));
        }
        for fd in self.streams.iter().map(|stream| &stream.fd).chain(&self.stdin) {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(())
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.status.pid.map(|pid| Pid::from_raw(pid as i32))
    }

    /// Asks it to end, and sets when it will be made to.
    pub fn stop(&mut self, grace: Duration) {
        let soonest = Instant::now() + grace;
        if grace.is_zero() {
            return self.kill();
        }
        let first = self.deadline.is_none();
        self.deadline = Some(self.deadline.map_or(soonest, |deadline| deadline.min(soonest)));
        if first && let Some(pid) = self.pid() {
            // It may have ended already; then its exit is on the way.
            let _ = kill(pid, Signal::SIGTERM);
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.deadline = None;
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    /// Writes to the log what a stream has now. `false` when the stream is at its end.
    pub fn drain(&mut self, stream: usize) -> bool {
        let mut buffer = [0; TURN];
        let Stream { fd, source } = &self.streams[stream];
        match nix::unistd::read(fd, &mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                for attachment in &mut self.attachments {
                    attachment.hear(*source, &buffer[..length]);
                }
                if let Some(log) = &mut self.log
                    && let Err(error) = log.write(*source, &buffer[..length], &now())
                {
                    tracing::warn!(container = %self.status.name, %error, "container output is lost");
                }
                true
            }
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => true,
            // A terminal whose other side is closed.
            Err(_) => false,
        }
    }

    /// Whether somebody who listens must take something before more of this stream is read.
    pub fn is_held(&self, stream: &Stream) -> bool {
        self.attachments.iter().any(|attachment| attachment.is_behind(stream.source))
    }

    /// A way into it, while it runs.
    pub fn entrance(&self) -> Result<OwnedFd, Refusal> {
        let gone = || Refusal::new(RefusalKind::NotRunning, "container is in CONTAINER_EXITED state");
        container::pidfd(self.pid().ok_or_else(gone)?).map_err(|_| gone())
    }

    /// Runs a further command in it; gives its process and what is held of it.
    pub fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        sandbox: &Sandbox,
    ) -> Result<(Pid, Vec<(Given, OwnedFd)>), Refusal> {
        let errand = Errand::Exec { id: id.to_owned() };
        let wrapped = |refusal: Refusal| {
            Refusal::new(refusal.kind, format!("failed to exec in container: {}", refusal.message))
        };
        let container = self.entrance().map_err(wrapped)?;
        let user = self.user.as_ref().ok_or_else(|| errand.failed("", "the container has no user yet"))?;
        let mut program = self.program.clone();
        program.argv.clone_from(&spec.command);
        program.terminal = spec.tty.then_some(spec.size);
        if spec.tty {
            command::set(&mut program.env, "TERM", "xterm");
        }
        let ExecSpec { stdin, stdout, stderr, .. } = *spec;
        let launch = Launch {
            sandbox,
            program: &program,
            entry: Entry::Running { container, user },
            errand,
            group: self.group.as_ref(),
            wanted: Wanted { stdin, stdout, stderr, room: Some(ROOM) },
        };
        let started = launch.start()?;
        if let Some(refusal) = started.failure {
            let _ = nix::sys::wait::waitpid(started.pid, None);
            return Err(refusal);
        }
        let pid = started.pid;
        let given =
            started.given(spec).map_err(|error| launch.errand.failed("prepare the streams", error))?;
        Ok((pid, given))
    }

    /// Lets a connection join its streams; what that gets.
    pub fn attach(
        &mut self,
        (connection, call): (u64, u64),
        spec: AttachSpec,
    ) -> Result<Vec<(Given, OwnedFd)>, Refusal> {
        if self.status.phase != ContainerPhase::Running {
            let text = "failed to attach container: container is in CONTAINER_EXITED state";
            return Err(Refusal::new(RefusalKind::NotRunning, text));
        }
        let failed = |error: io::Error| {
            Refusal::new(RefusalKind::Exec, format!("failed to attach container: {error}"))
        };
        let tty = self.terminal.is_some();
        let wanted = [
            (spec.stdout, Source::Stdout, Given::Stdout),
            (spec.stderr && !tty, Source::Stderr, Given::Stderr),
        ];
        let wanted: Vec<_> = wanted.iter().filter(|(wanted, ..)| *wanted).collect();
        let sources: Vec<Source> = wanted.iter().map(|(_, source, _)| *source).collect();
        let (attachment, ends) = Attachment::new(connection, call, &sources).map_err(failed)?;
        let mut given: Vec<_> = wanted.iter().map(|(.., given)| *given).zip(ends).collect();
        if let Some(terminal) = &self.terminal {
            given.push((Given::Terminal, terminal.try_clone().map_err(failed)?));
        }
        let stdin = match &self.stdin {
            Some(_) if !spec.stdin => None,
            // Whoever gets it is the only one who can end it.
            Some(_) if self.stdin_once && !tty => self.stdin.take(),
            Some(stdin) => Some(stdin.try_clone().map_err(failed)?),
            None => None,
        };
        given.extend(stdin.map(|fd| (Given::Stdin, fd)));
        self.attachments.push(attachment);
        Ok(given)
    }

    /// Takes note of its process's end.
    pub fn exited(&mut self, code: i32, signal: Option<i32>) {
        self.kill_stragglers();
        let out_of_memory = self.group.as_ref().is_some_and(Group::out_of_memory);
        let reason = match (code, out_of_memory) {
            (0, _) => "Completed",
            (137, true) => "OOMKilled",
            _ => "Error",
        };
        self.end(code, signal, reason, None);
    }

    fn end(&mut self, code: i32, signal: Option<i32>, reason: &str, message: Option<String>) {
        self.drain_all();
        if let Some(mut log) = self.log.take()
            && let Err(error) = log.finish(&now())
        {
            tracing::warn!(container = %self.status.name, %error, "container output is lost");
        }
        if let Some(group) = self.group.take() {
            group.remove();
        }
        self.attachments.iter_mut().for_each(Attachment::finish);
        (self.stdin, self.terminal) = (None, None);
        self.deadline = None;
        self.status.phase = ContainerPhase::Exited;
        self.status.pid = None;
        self.status.exit_code = Some(code);
        self.status.signal = signal;
        self.status.finished_at = Some(now());
        self.status.reason = Some(reason.to_owned());
        self.status.message = message;
    }

    /// Takes all that is in the pipes now; who still holds their other ends has outlived the container.
    fn drain_all(&mut self) {
        for stream in 0..self.streams.len() {
            while readable(&self.streams[stream].fd) && self.drain(stream) {}
        }
        self.streams.clear();
    }

    /// Opens the log anew, after the kubelet moved the file away.
    pub fn reopen_log(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), Log::reopen)
    }

    /// Where pids are shared nothing ends with the main process, so what has its mount namespace is killed.
    fn kill_stragglers(&self) {
        let Some(namespace) = &self.namespace else { return };
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let pid = Pid::from_raw(pid);
            if mount_namespace(pid).as_deref() == Some(namespace) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }
}

fn mount_namespace(pid: Pid) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn readable(fd: &OwnedFd) -> bool {
    let mut poll = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(fd), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
