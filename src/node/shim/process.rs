//! From the shim's fork to the container's program: join the pod, build the root, take on the identity, exec.
//!
//! Two forks: the first joins the pod's namespaces and makes the container's own, which a new pid namespace
//! needs; the second is the container, a child of the shim (CLONE_PARENT), so that the shim waits for it and
//! its death takes it along. Whatever fails is told to the shim over a socket that closes with the exec.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::command;
use super::identity::{Identity, Way};
use super::limits::Group;
use super::program::{self, create};
use super::protocol::Refusal;
use super::root::Root;
use super::sandbox::{Pids, Sandbox};
use super::spec::Security;
use crate::sys::capabilities::Capabilities;
use crate::sys::container::{self, Ids, Side};
use crate::sys::packet::PacketSocket;
use crate::sys::seccomp::{self, Profile};

/// Containers are the first to go when the machine's memory ends, before any role.
const OOM_SCORE: &str = "1000";

/// All that a container's process is made from.
#[derive(Debug)]
pub struct Process {
    pub root: Root,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: String,
    pub image_user: String,
    pub security: Security,
    pub capabilities: Capabilities,
    pub tty: bool,
    pub stdin: bool,
    pub group: Option<Group>,
}

/// A started container and the shim's ends of its standard streams.
#[derive(Debug)]
pub struct Started {
    pub pid: Pid,
    pub stdin: Option<OwnedFd>,
    /// The terminal, where there is one.
    pub stdout: OwnedFd,
    pub stderr: Option<OwnedFd>,
    /// Why there is a process no longer, or never was one that ran the program.
    pub failure: Option<Refusal>,
}

impl Process {
    /// Starts it in a sandbox. Returns when its program runs or could not be run.
    pub fn start(&self, sandbox: &Sandbox) -> Result<Started, Refusal> {
        let failed = |error: io::Error| Refusal::create("failed to start the container's process", error);
        let (ours, theirs) = PacketSocket::pair().map_err(failed)?;
        let (shims, containers) = Streams::open(self.stdin && !self.tty).map_err(failed)?;
        let stage = match container::fork(CloneFlags::empty()).map_err(failed)? {
            Side::Child => {
                drop((ours, shims));
                self.stage(sandbox, containers, &theirs)
            }
            Side::Parent(pid) => pid,
        };
        drop((theirs, containers));
        let mut heard = Heard::default();
        while let Ok(Some((word, fds))) = ours.receive() {
            heard.word(&word, fds);
        }
        // It ends right after the second fork, or instead of it.
        let _ = waitpid(stage, None);
        let Some(pid) = heard.pid else {
            return Err(heard.refusal.unwrap_or_else(|| failed(io::Error::other("it ended early"))));
        };
        let (stdin, stdout, stderr) = match heard.terminal {
            Some(terminal) => (Some(terminal.as_fd().try_clone_to_owned().map_err(failed)?), terminal, None),
            None => (shims.stdin, shims.stdout, Some(shims.stderr)),
        };
        Ok(Started { pid, stdin, stdout, stderr, failure: heard.refusal })
    }

    /// The first fork.
    fn stage(&self, sandbox: &Sandbox, streams: ContainerStreams, shim: &PacketSocket) -> ! {
        let second = self.join(sandbox).and_then(|()| {
            container::fork(CloneFlags::CLONE_PARENT).map_err(|error| Refusal::create("clone", error))
        });
        let word = match second {
            Ok(Side::Parent(pid)) => Word::Pid(pid.as_raw()),
            Ok(Side::Child) => {
                let Err(refusal) = self.become_container(streams, shim);
                Word::Refused(refusal)
            }
            Err(refusal) => Word::Refused(refusal),
        };
        // Without a shim to hear it this process is about to be killed.
        let _ = shim.send(&word.bytes(), &[]);
        container::leave(128)
    }

    fn join(&self, sandbox: &Sandbox) -> Result<(), Refusal> {
        if let Some(group) = &self.group {
            group.enter().map_err(|error| Refusal::create("join the cgroup", error))?;
        }
        let failed = |error| Refusal::create("join the pod's namespaces", error);
        let mut shared = sandbox.namespaces;
        shared.set(CloneFlags::CLONE_NEWPID, sandbox.pids == Pids::Pod);
        if !shared.is_empty() {
            setns(&sandbox.pidfd, shared).map_err(failed)?;
        }
        let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
        own.set(CloneFlags::CLONE_NEWPID, sandbox.pids == Pids::Own);
        unshare(own).map_err(failed)
    }

    /// The second fork: pid 1 of the container, unless it shares its pid namespace.
    fn become_container(
        &self,
        streams: ContainerStreams,
        shim: &PacketSocket,
    ) -> Result<Infallible, Refusal> {
        let failed = |step: &'static str| move |error: io::Error| create(step, error);
        container::die_with_parent().map_err(failed("prctl"))?;
        container::fresh_session().map_err(failed("setsid"))?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        self.root.enter()?;
        let streams = if self.tty { self.open_terminal(shim)? } else { streams };
        // Refused only where it is higher already.
        let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        let identity = Identity::resolve(&self.security, &self.image_user)?;
        let mut env = self.env.clone();
        if command::value(&env, "HOME").is_none() {
            env.push(("HOME".into(), identity.home.clone()));
        }
        fs::create_dir_all(&self.working_dir).map_err(failed("mkdir of the working directory"))?;
        self.restrict(&identity)?;
        nix::unistd::chdir(self.working_dir.as_str()).map_err(|error| {
            create(
                "",
                format!(
                    "chdir to cwd ({:?}) set in config.json failed: {}",
                    self.working_dir,
                    error.desc().to_lowercase()
                ),
            )
        })?;
        let found = program::find(&self.argv[0], command::value(&env, "PATH").unwrap_or_default())?;
        container::place_stdio([&streams.stdin, &streams.stdout, &streams.stderr]).map_err(failed("dup2"))?;
        container::close_others_on_exec(3);
        // The last change of identity cleared it.
        container::die_with_parent().map_err(failed("prctl"))?;
        let Err(error) = container::exec(&found.display().to_string(), &self.argv, &env);
        // As runc: from here on the container runs, and this is its own output.
        let text = format!("exec {}: {}\n", found.display(), program::io_text(&error));
        let _ = nix::unistd::write(io::stderr(), text.as_bytes());
        container::leave(255)
    }

    /// Identity, capabilities, seccomp. In this order: a filter without no-new-privileges needs CAP_SYS_ADMIN,
    /// dropping from the bounding set needs CAP_SETPCAP, and both are gone after setuid.
    fn restrict(&self, identity: &Identity) -> Result<(), Refusal> {
        let failed = |step: &'static str| move |error: io::Error| create(step, error);
        let users = Ids::own("uid_map").map_err(failed("read /proc/self/uid_map"))?;
        let groups = Ids::own("gid_map").map_err(failed("read /proc/self/gid_map"))?;
        let way = identity.way(&users, &groups)?;
        if way == Way::OnlyUser {
            identity.become_only().map_err(failed("enter a user namespace for the user"))?;
        }
        self.capabilities.bound().map_err(failed("drop capabilities"))?;
        let no_new_privileges =
            self.security.allow_privilege_escalation == Some(false) && !self.security.privileged;
        let profile = self.profile()?;
        if let (Some(profile), false) = (&profile, no_new_privileges) {
            profile.load().map_err(failed("load the seccomp filter"))?;
        }
        if way == Way::Switch {
            identity.take_on().map_err(|error| create("setup user", error))?;
        }
        if no_new_privileges {
            seccomp::no_new_privileges().map_err(failed("set no_new_privs"))?;
            if let Some(profile) = &profile {
                profile.load().map_err(failed("load the seccomp filter"))?;
            }
        }
        Ok(())
    }

    fn profile(&self) -> Result<Option<Profile>, Refusal> {
        match (self.security.seccomp.as_deref(), self.security.privileged) {
            (Some("RuntimeDefault"), false) => Profile::runtime_default(self.capabilities)
                .map(Some)
                .map_err(|error| create("make the seccomp filter", error)),
            _ => Ok(None),
        }
    }

    /// A terminal of the container's own devpts; the shim gets the other end.
    fn open_terminal(&self, shim: &PacketSocket) -> Result<ContainerStreams, Refusal> {
        let open = || -> io::Result<ContainerStreams> {
            let master = nix::pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
            nix::pty::unlockpt(&master)?;
            let name = nix::pty::ptsname_r(&master)?;
            let terminal = OwnedFd::from(File::options().read(true).write(true).open(name)?);
            container::control_terminal(&terminal)?;
            shim.send(&Word::Terminal.bytes(), &[master.as_fd()])?;
            let (stdout, stderr) = (terminal.try_clone()?, terminal.try_clone()?);
            Ok(ContainerStreams { stdin: terminal, stdout, stderr })
        };
        open().map_err(|error| create("open a terminal", error))
    }
}

/// What the forks tell the shim.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Word {
    Pid(i32),
    Terminal,
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
    refusal: Option<Refusal>,
}

impl Heard {
    fn word(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        match serde_json::from_slice(bytes) {
            Ok(Word::Pid(pid)) => self.pid = Some(Pid::from_raw(pid)),
            Ok(Word::Terminal) => self.terminal = fds.into_iter().next(),
            Ok(Word::Refused(refusal)) => self.refusal = Some(refusal),
            // Only our own fork writes here.
            Err(_) => {}
        }
    }
}

/// The shim's ends of the pipes.
struct Streams {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// The container's ends.
struct ContainerStreams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Streams {
    fn open(stdin: bool) -> io::Result<(Streams, ContainerStreams)> {
        let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
        let (out, out_end) = pipe()?;
        let (error, error_end) = pipe()?;
        let (input, input_end) = match stdin {
            true => pipe().map(|(read, write)| (read, Some(write)))?,
            false => (OwnedFd::from(File::open("/dev/null")?), None),
        };
        let ours = Streams { stdin: input_end, stdout: out, stderr: error };
        Ok((ours, ContainerStreams { stdin: input, stdout: out_end, stderr: error_end }))
    }
}
