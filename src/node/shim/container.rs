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
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command;
use super::identity;
use super::limits::Group;
use super::log::{Log, Source, now};
use super::process::Process;
use super::protocol::{Refusal, RefusalKind};
use super::root::{Root, RootMount};
use super::sandbox::{Pids, Sandbox};
use super::spec::{ContainerPhase, ContainerSpec, ContainerStatus};
use crate::node::image::{self, Image};
use crate::sys::capabilities::Capabilities;

/// How much output is taken from one stream before the others get their turn.
const TURN: usize = 64 * 1024;

#[derive(Debug)]
pub struct Container {
    pub status: ContainerStatus,
    pub streams: Vec<Stream>,
    /// Kept for whoever attaches later; closing it is end of file for the program.
    #[expect(dead_code, reason = "held open; attach will write to it")]
    stdin: Option<OwnedFd>,
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
    ) -> Result<(Container, Option<Refusal>), Refusal> {
        let image = image::resolve(&spec.image)
            .map_err(|error| Refusal::new(RefusalKind::Create, error.to_string()))?;
        identity::verify_non_root(&spec.security, &image.config.user, &sandbox.spec, &spec.name)?;
        let log_path = sandbox.spec.log_directory.join(&spec.log_path);
        let log = Log::open(&log_path).map_err(|error| Refusal::create("open the log file", error))?;
        let group = Group::with(id, &spec.limits).map_err(|error| Refusal::create("set limits", error))?;
        let mut process = process(id, spec, sandbox, &image)?;
        process.group = group;
        let created_at = now();
        let started = process.start(sandbox)?;
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
            streams: vec![Stream { fd: started.stdout, source: Source::Stdout }],
            stdin: started.stdin,
            log: Some(log),
            group: process.group,
            namespace: mount_namespace(started.pid).filter(|_| sandbox.pids != Pids::Own),
            deadline: None,
        };
        let errors = started.stderr.map(|fd| Stream { fd, source: Source::Stderr });
        container.streams.extend(errors);
        for stream in &container.streams {
            fcntl(&stream.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .map_err(|error| Refusal::create("prepare a pipe", error))?;
        }
        if let Some(refusal) = &started.failure {
            let _ = nix::sys::wait::waitpid(started.pid, None);
            container.end(128, None, "StartError", Some(refusal.message.clone()));
        }
        Ok((container, started.failure))
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

fn process(id: &str, spec: &ContainerSpec, sandbox: &Sandbox, image: &Image) -> Result<Process, Refusal> {
    let paths = &sandbox.paths;
    let working_dir = spec.working_dir.as_deref().filter(|directory| !directory.is_empty());
    let from_image = Some(image.config.working_dir.as_str()).filter(|directory| !directory.is_empty());
    Ok(Process {
        root: Root {
            mount_point: paths.mount_point(),
            layers: image.layers.clone(),
            writable: paths.container(id),
            mounts: mounts(spec, sandbox, image),
            shared_memory: match sandbox.spec.host_ipc {
                true => "/dev/shm".into(),
                false => paths.shared_memory(),
            },
            privileged: spec.security.privileged,
            read_only: spec.security.read_only_root_filesystem,
        },
        argv: command::argv(spec, &image.config)?,
        env: command::environment(spec, &image.config, &sandbox.spec.hostname),
        working_dir: working_dir.or(from_image).unwrap_or("/").to_owned(),
        image_user: image.config.user.clone(),
        security: spec.security.clone(),
        capabilities: capabilities(spec)?,
        tty: spec.tty,
        stdin: spec.stdin,
        group: None,
    })
}

/// The image's, the runtime's own, then the pod's; where the pod has one at the same place, only that.
fn mounts(spec: &ContainerSpec, sandbox: &Sandbox, image: &Image) -> Vec<RootMount> {
    let read_only = |from: &Path, to: &Path| RootMount { from: from.into(), to: to.into(), read_only: true };
    let mut mounts: Vec<RootMount> = image.binds.iter().map(|(from, to)| read_only(from, to)).collect();
    let hostname = sandbox.paths.hostname();
    let own = [(hostname.as_path(), "/etc/hostname"), (Path::new("/etc/resolv.conf"), "/etc/resolv.conf")];
    mounts.extend(
        own.iter().filter(|(from, _)| from.exists()).map(|(from, to)| read_only(from, Path::new(to))),
    );
    for wanted in &spec.mounts {
        mounts.retain(|mount| mount.to != wanted.container_path);
        mounts.push(RootMount {
            from: wanted.host_path.clone(),
            to: wanted.container_path.clone(),
            read_only: wanted.read_only,
        });
    }
    mounts
}

fn capabilities(spec: &ContainerSpec) -> Result<Capabilities, Refusal> {
    let security = &spec.security;
    if security.privileged {
        return Ok(Capabilities::all());
    }
    let unknown = |name: &str| {
        let message = format!("failed to generate container spec: unknown capability \"CAP_{name}\"");
        Refusal::new(RefusalKind::Create, message)
    };
    // As containerd: ALL before the single ones, drops of single ones last.
    let is_all = |name: &&String| name.eq_ignore_ascii_case("ALL");
    let mut set = match security.add_capabilities.iter().any(|name| is_all(&name)) {
        true => Capabilities::all(),
        false => Capabilities::containerd_default(),
    };
    if security.drop_capabilities.iter().any(|name| is_all(&name)) {
        set = Capabilities::none();
    }
    for name in security.add_capabilities.iter().filter(|name| !is_all(name)) {
        set = set.with(name).ok_or_else(|| unknown(name))?;
    }
    for name in security.drop_capabilities.iter().filter(|name| !is_all(name)) {
        set = set.without(name).ok_or_else(|| unknown(name))?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::shim::command::tests::container;

    #[test]
    fn drop_all_and_add_one_leaves_one() {
        let mut spec = container("c", &[]);
        spec.security.drop_capabilities = vec!["ALL".into()];
        spec.security.add_capabilities = vec!["NET_BIND_SERVICE".into()];
        assert_eq!(capabilities(&spec).unwrap(), Capabilities::none().with("NET_BIND_SERVICE").unwrap());
        spec.security.add_capabilities = vec!["NOTHING".into()];
        assert!(capabilities(&spec).unwrap_err().message.contains("CAP_NOTHING"));
    }
}
