//! What a shim does when it is asked.

use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::wait::waitpid;

use super::super::container::Container;
use super::super::protocol::{self, Answer, Call, Given, Refusal, RefusalKind, Request};
use super::super::spec::{ContainerPhase, ContainerSpec};
use super::{Running, Shim};
use crate::sys::namespace::Network;

/// When a request is answered.
enum Now {
    Done,
    /// When what it asked for has happened.
    Later,
    /// Now, with descriptors.
    Given(Box<Answer>, Vec<OwnedFd>),
}

impl Now {
    fn given(given: Vec<(Given, OwnedFd)>) -> Now {
        let (what, fds) = given.into_iter().unzip();
        Now::Given(Box::new(Answer::given(0, what)), fds)
    }
}

impl Shim {
    pub(super) fn hear(&mut self, index: usize) {
        let calls = self.connections[index].receive();
        for call in calls {
            let (id, outcome) = match call {
                Ok(Call { id, request }) => (id, self.follow(index, id, request)),
                Err(id) => {
                    let message = "the pod's shim is older than this request: restart the pod";
                    (id, Err(Refusal::new(RefusalKind::Unknown, message)))
                }
            };
            let connection = &mut self.connections[index];
            match outcome {
                Ok(Now::Later) => {}
                Ok(Now::Given(answer, fds)) => {
                    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                    connection.give(&Answer { id, ..*answer }, &fds);
                }
                Ok(Now::Done) => {
                    let state = self.state();
                    self.connections[index].send(&Answer::state(id, state));
                }
                Err(refusal) => {
                    let state = Some(self.state());
                    self.connections[index].send(&Answer { state, ..Answer::refused(id, refusal) });
                }
            }
        }
    }

    fn follow(&mut self, connection: usize, call: u64, request: Request) -> Result<Now, Refusal> {
        match request {
            Request::Watch => self.connections[connection].watches = true,
            Request::Start { container, spec } => return self.start(&container, &spec),
            Request::Stop { container, grace_ms } => {
                let ours = self.find(&container)?;
                if ours.status.phase == ContainerPhase::Running {
                    ours.stop(std::time::Duration::from_millis(grace_ms));
                    self.waiting.push((container, self.connections[connection].number, call));
                    return Ok(Now::Later);
                }
            }
            Request::Remove { container } => return self.remove(&container),
            Request::ReopenLog { container } => {
                let ours = self.find(&container)?;
                ours.reopen_log().map_err(|error| Refusal::create("open the log file", error))?;
            }
            Request::Exec { container, exec, spec, leash } => {
                let asker = (self.connections[connection].number, call);
                let place = self.place(&container)?;
                let (pid, given) = self.containers[place].exec(&exec, &spec, &self.sandbox)?;
                self.commands.push(Running { pid, asker, leash });
                return Ok(Now::given(given));
            }
            Request::Attach { container, spec } => {
                let asker = (self.connections[connection].number, call);
                return self.find(&container)?.attach(asker, spec).map(Now::given);
            }
            Request::Socket { v6 } => return self.socket(v6),
            Request::StopSandbox => {
                self.ending = true;
                self.connections[connection].goodbye = Some(call);
                self.containers.iter_mut().for_each(Container::kill);
                self.sandbox.kill();
                self.sandbox.unplug();
            }
        }
        match self.ending {
            true => Ok(Now::Later),
            false => Ok(Now::Done),
        }
    }

    fn start(&mut self, id: &str, spec: &ContainerSpec) -> Result<Now, Refusal> {
        if self.ending || !self.ready {
            return Err(Refusal::new(RefusalKind::Create, "the sandbox is not running"));
        }
        if !protocol::is_id(std::path::Path::new(id)) {
            return Err(Refusal::new(RefusalKind::Create, "a container's id is 64 hex digits"));
        }
        if self.find(id).is_ok() {
            return Ok(Now::Done);
        }
        let target = spec.target.as_deref().map(|name| self.target(name)).transpose()?;
        let (container, failure) = Container::start(id, spec, &self.sandbox, target)?;
        self.containers.push(container);
        self.changed();
        failure.map_or(Ok(Now::Done), Err)
    }

    /// A way into the running container of this name.
    fn target(&self, name: &str) -> Result<OwnedFd, Refusal> {
        let named = self.containers.iter().filter(|one| one.status.name == name);
        let latest = named.max_by_key(|one| one.status.attempt);
        let message = format!("unable to find target container {name}");
        latest.ok_or_else(|| Refusal::new(RefusalKind::Config, message))?.entrance()
    }

    /// A socket in the pod's network, or the node's for a pod that has none of its own.
    fn socket(&self, v6: bool) -> Result<Now, Refusal> {
        if !self.ready {
            let message = format!("sandbox container {:?} is not running", self.id());
            return Err(Refusal::new(RefusalKind::NotRunning, message));
        }
        let own = self.sandbox.namespaces.contains(CloneFlags::CLONE_NEWNET);
        let network = if own { Network::of(self.sandbox.pause.as_raw() as u32) } else { Network::current() };
        let socket = network.and_then(|network| network.tcp_socket(v6)).map_err(|error| {
            Refusal::new(RefusalKind::Exec, format!("failed to execute portforward: {error}"))
        })?;
        let place = if own { format!("/proc/{}/ns/net", self.sandbox.pause) } else { "host".to_owned() };
        let answer = Answer { network: Some(place), ..Answer::given(0, vec![Given::Socket]) };
        Ok(Now::Given(Box::new(answer), vec![socket]))
    }

    fn remove(&mut self, id: &str) -> Result<Now, Refusal> {
        let Some(place) = self.containers.iter().position(|container| container.status.id == id) else {
            return Ok(Now::Done);
        };
        let mut container = self.containers.remove(place);
        if let Some(pid) = container.pid() {
            container.kill();
            let _ = waitpid(pid, None);
            container.exited(137, Some(9));
        }
        self.changed();
        Ok(Now::Done)
    }

    fn find(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        let place = self.place(id)?;
        Ok(&mut self.containers[place])
    }

    fn place(&self, id: &str) -> Result<usize, Refusal> {
        self.containers.iter().position(|container| container.status.id == id).ok_or_else(|| {
            let message = format!("an error occurred when try to find container \"{id}\": not found");
            Refusal::new(RefusalKind::NotFound, message)
        })
    }
}
