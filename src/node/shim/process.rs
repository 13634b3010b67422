//! From the shim's fork to the program: join the pod, build or enter the container, take on the identity, exec.
//!
//! Two forks: the first joins namespaces, which takes effect on pids only for children; the second is the
//! process, a child of the shim (CLONE_PARENT), so that the shim waits for it and its death takes it along.
//! Whatever fails is told to the shim over a socket that closes with the exec. A container's first process
//! and a command exec'd in it differ only in how they come into it.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::command;
use super::identity::Way;
use super::limits::Group;
use super::program::{self, Errand};
use super::protocol::{Given, Refusal};
use super::rights::{Rights, User};
use super::root::Root;
use super::sandbox::{Pids, Sandbox};
use super::spec::ExecSpec;
use super::streams::{self, Inner, Outer, Wanted};
use crate::sys::container::{self, Side};
use crate::sys::packet::PacketSocket;

/// What is run, and with which rights.
#[derive(Debug, Clone)]
pub struct Program {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: String,
    pub rights: Rights,
    /// How soon the kernel is to end it when memory does.
    pub oom_score: i32,
    /// A terminal, of this size in columns and rows.
    pub terminal: Option<Option<(u16, u16)>>,
}

/// How a process comes into its container.
#[derive(Debug)]
pub enum Entry<'a> {
    /// It is the first: with a new root, beside the processes of `target` where there is one.
    New { root: &'a Root, image_user: &'a str, target: Option<OwnedFd> },
    /// The container runs, and this is a way into it.
    Running { container: OwnedFd, user: &'a User },
}

/// A process about to be made.
#[derive(Debug)]
pub struct Launch<'a> {
    pub sandbox: &'a Sandbox,
    pub program: &'a Program,
    pub entry: Entry<'a>,
    pub errand: Errand,
    pub group: Option<&'a Group>,
    pub wanted: Wanted,
}

/// A started process and the shim's ends of its standard streams.
#[derive(Debug)]
pub struct Started {
    pub pid: Pid,
    pub streams: Outer,
    /// The outer end, of which nothing else holds a copy.
    pub terminal: Option<OwnedFd>,
    /// As whom it runs, unless it failed before that was known.
    pub user: Option<User>,
    /// Why there is a process no longer, or never was one that ran the program.
    pub failure: Option<Refusal>,
}

impl Started {
    /// What whoever asked for the command gets to hold.
    pub fn given(self, spec: &ExecSpec) -> io::Result<Vec<(Given, OwnedFd)>> {
        let Outer { stdin, stdout, stderr } = self.streams;
        let mut given = Vec::new();
        if let Some(terminal) = self.terminal {
            for (wanted, what) in [(spec.stdin, Given::Stdin), (spec.stdout, Given::Stdout)] {
                if wanted {
                    given.push((what, terminal.try_clone()?));
                }
            }
            given.push((Given::Terminal, terminal));
        }
        let pipes = [(Given::Stdin, stdin), (Given::Stdout, stdout), (Given::Stderr, stderr)];
        given.extend(pipes.into_iter().filter_map(|(what, fd)| Some((what, fd?))));
        Ok(given)
    }
}

impl Launch<'_> {
    /// Starts it. Returns when its program runs or could not be run.
    pub fn start(&self) -> Result<Started, Refusal> {
        let failed = |error: io::Error| self.errand.failed("failed to start the process", error);
        let (ours, theirs) = PacketSocket::pair().map_err(failed)?;
        let none = Wanted { stdin: false, stdout: false, stderr: false, room: None };
        let pipes = if self.program.terminal.is_some() { none } else { self.wanted };
        let (outer, inner) = streams::pipes(pipes).map_err(failed)?;
        let stage = match container::fork(CloneFlags::empty()).map_err(failed)? {
            Side::Child => {
                drop((ours, outer));
                self.stage(inner, &theirs)
            }
            Side::Parent(pid) => pid,
        };
        drop((theirs, inner));
        let mut heard = Heard::default();
        while let Ok(Some((word, fds))) = ours.receive() {
            heard.word(&word, fds);
        }
        // It ends right after the second fork, or instead of it.
        let _ = waitpid(stage, None);
        let Some(pid) = heard.pid else {
            return Err(heard.refusal.unwrap_or_else(|| failed(io::Error::other("it ended early"))));
        };
        let Heard { terminal, user, refusal: failure, .. } = heard;
        Ok(Started { pid, streams: outer, terminal, user, failure })
    }

    /// The first fork.
    fn stage(&self, streams: Inner, shim: &PacketSocket) -> ! {
        let second = self.join().and_then(|()| {
            container::fork(CloneFlags::CLONE_PARENT).map_err(|error| self.errand.failed("clone", error))
        });
        let word = match second {
            Ok(Side::Parent(pid)) => Word::Pid(pid.as_raw()),
            Ok(Side::Child) => {
                let Err(refusal) = self.become_it(streams, shim);
                Word::Refused(refusal)
            }
            Err(refusal) => Word::Refused(refusal),
        };
        // Without a shim to hear it this process is about to be killed.
        let _ = shim.send(&word.bytes(), &[]);
        container::leave(128)
    }

    fn join(&self) -> Result<(), Refusal> {
        if let Some(group) = self.group {
            group.enter().map_err(|error| self.errand.failed("join the cgroup", error))?;
        }
        let failed = |error| self.errand.failed("join the pod's namespaces", error);
        let pids = self.sandbox.pids;
        let mut shared = self.sandbox.namespaces;
        let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
        match &self.entry {
            Entry::New { target, .. } => {
                shared.set(CloneFlags::CLONE_NEWPID, pids == Pids::Pod);
                if !shared.is_empty() {
                    setns(&self.sandbox.pidfd, shared).map_err(failed)?;
                }
                if let Some(target) = target.as_ref().filter(|_| pids == Pids::Own) {
                    setns(target, CloneFlags::CLONE_NEWPID).map_err(failed)?;
                }
                own.set(CloneFlags::CLONE_NEWPID, pids == Pids::Own && target.is_none());
                unshare(own).map_err(failed)
            }
            Entry::Running { container, .. } => {
                // From the second fork on the container's processes see this one.
                container::be_closed().map_err(|error| self.errand.failed("prctl", error))?;
                if !shared.is_empty() {
                    setns(&self.sandbox.pidfd, shared).map_err(failed)?;
                }
                own.set(CloneFlags::CLONE_NEWPID, pids != Pids::Host);
                setns(container, own).map_err(failed)
            }
        }
    }

    /// The second fork: pid 1 of a new container, unless it shares its pid namespace.
    fn become_it(&self, streams: Inner, shim: &PacketSocket) -> Result<Infallible, Refusal> {
        let failed = |step: &'static str| move |error: io::Error| self.errand.failed(step, error);
        container::die_with_parent().map_err(failed("prctl"))?;
        container::fresh_session().map_err(failed("setsid"))?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        if let Entry::New { root, .. } = &self.entry {
            root.enter()?;
        }
        let streams = match self.program.terminal {
            Some(size) => self.open_terminal(size, shim)?,
            None => streams,
        };
        // Refused where it would fall below what the shim itself has.
        let _ = fs::write("/proc/self/oom_score_adj", self.program.oom_score.to_string());
        let (user, container) = self.user(shim)?;
        if user.way == Way::Switch {
            streams.belong_to(user.identity.uid);
        }
        let mut env = self.program.env.clone();
        if command::value(&env, "HOME").is_none() {
            env.push(("HOME".into(), user.identity.home.clone()));
        }
        self.program.rights.take_on(&user, container, &self.errand)?;
        self.enter_working_dir()?;
        let name = self.program.argv.first().map(String::as_str).unwrap_or_default();
        let path = command::value(&env, "PATH").unwrap_or_default();
        let found = program::find(name, path).map_err(|why| self.errand.not_started(why))?;
        streams.place().map_err(failed("dup2"))?;
        container::close_others_on_exec(3);
        // The last change of identity cleared it.
        container::die_with_parent().map_err(failed("prctl"))?;
        let Err(error) = container::exec(&found.display().to_string(), &self.program.argv, &env);
        // As runc: from here on the container runs, and this is its own output.
        let text = format!("exec {}: {}\n", found.display(), program::io_text(&error));
        let _ = nix::unistd::write(io::stderr(), text.as_bytes());
        container::leave(255)
    }

    /// As whom to run. Of a new container the shim is told, for the commands that follow.
    fn user(&self, shim: &PacketSocket) -> Result<(User, Option<&OwnedFd>), Refusal> {
        match &self.entry {
            Entry::Running { container, user } => Ok(((*user).clone(), Some(container))),
            Entry::New { image_user, .. } => {
                let user = User::resolve(&self.program.rights.security, image_user)?;
                // The image's root is still ours here: a directory that is missing is made, as runc does.
                fs::create_dir_all(&self.program.working_dir)
                    .map_err(|error| self.errand.failed("mkdir of the working directory", error))?;
                shim.send(&Word::User(user.clone()).bytes(), &[])
                    .map_err(|error| self.errand.failed("tell the shim", error))?;
                Ok((user, None))
            }
        }
    }

    fn enter_working_dir(&self) -> Result<(), Refusal> {
        let directory = self.program.working_dir.as_str();
        nix::unistd::chdir(directory).map_err(|error| {
            let why = error.desc().to_lowercase();
            self.errand.failed("", format!("chdir to cwd ({directory:?}) set in config.json failed: {why}"))
        })
    }

    /// A terminal of the container's own devpts; the shim gets the other end.
    fn open_terminal(&self, size: Option<(u16, u16)>, shim: &PacketSocket) -> Result<Inner, Refusal> {
        let open = || -> io::Result<Inner> {
            let (outer, inner) = streams::on_terminal(size)?;
            shim.send(&Word::Terminal.bytes(), &[outer.as_fd()])?;
            Ok(inner)
        };
        open().map_err(|error| self.errand.failed("open a terminal", error))
    }
}

/// What the forks tell the shim.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Word {
    Pid(i32),
    Terminal,
    User(User),
    Refused(Refusal),
}

impl Word {
    fn bytes(&self) -> Vec<u8> {
        super::protocol::line(self)
    }
}

#[derive(Default)]
struct Heard {
    pid: Option<Pid>,
    terminal: Option<OwnedFd>,
    user: Option<User>,
    refusal: Option<Refusal>,
}

impl Heard {
    fn word(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        match serde_json::from_slice(bytes) {
            Ok(Word::Pid(pid)) => self.pid = Some(Pid::from_raw(pid)),
            Ok(Word::Terminal) => self.terminal = fds.into_iter().next(),
            Ok(Word::User(user)) => self.user = Some(user),
            Ok(Word::Refused(refusal)) => self.refusal = Some(refusal),
            // Only our own fork writes here.
            Err(_) => {}
        }
    }
}
