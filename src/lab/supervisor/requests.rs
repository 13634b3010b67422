//! What the command line asks for, and whom it keeps waiting.

use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::SupervisorError;
use super::control::{Caller, refusal};
use super::events::Supervisor;
use super::hosts;
use super::reports::last_line;
use super::role::Input;
use super::start::Role;
use crate::lab::order::{Order, Run};
use crate::lab::protocol::{Exec, Reply, Request, RoleStatus, Status};

/// A role that ends this often after it was asked to serve will not.
const HOPELESS: u32 = 5;
/// Names of sessions start here, names of role runs are below.
const SESSIONS: u64 = 1 << 48;

/// Who waits for roles to serve, or to end.
pub struct Waiter {
    pub(super) caller: Caller,
    /// Which, and how often each had been restarted.
    pub(super) roles: Vec<(usize, u32)>,
    pub(super) serving: bool,
}

impl Supervisor {
    pub(super) fn serve(&mut self, request: Request, fds: Vec<OwnedFd>, caller: Caller) {
        match request {
            Request::Status => caller.answer(&Reply::Status(self.status()), None),
            Request::Start { role, host } => self.turn(&role, host.as_deref(), Input::Start, caller),
            Request::Stop { role, host } => self.turn(&role, host.as_deref(), Input::Stop, caller),
            Request::Restart { role, host } => self.turn(&role, host.as_deref(), Input::Restart, caller),
            Request::Down => self.end(),
            Request::Exec(exec) => self.exec(exec, fds, caller),
            Request::HostKill { host } => self.kill_host(host, caller),
            Request::Replan => {
                let reply = match self.replan() {
                    Ok(()) => Reply::Done,
                    Err(error) => refusal(format!("{error:#}")),
                };
                caller.answer(&reply, None);
            }
            Request::Hold => {
                self.held = Some(caller.id);
                caller.answer(&Reply::Done, None);
            }
            Request::Turn { restart } => self.turn_over(&restart, caller),
            Request::HostStart { host } => {
                let reply = match self.start_host(&host) {
                    Ok(()) => Reply::Done,
                    Err(error) => refusal(text(&error)),
                };
                caller.answer(&reply, None);
            }
        }
    }

    /// Pulls a host's plug; answered when it is dead.
    fn kill_host(&mut self, host: String, caller: Caller) {
        let Some(running) = self.hosts.get(&host) else {
            return caller.answer(&refusal(SupervisorError::NoHost { host }), None);
        };
        match kill(Pid::from_raw(running.pid), Signal::SIGKILL) {
            Ok(()) => self.unplugged.push((host, caller)),
            Err(error) => caller.answer(&refusal(error), None),
        }
    }

    pub(super) fn start_host(&mut self, host: &str) -> Result<(), SupervisorError> {
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

    pub(super) fn answer_waiters(&mut self) {
        let (roles, lab) = (&self.roles, &self.lab);
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
                let last = last_line(&lab.log(&plan.name, &plan.host)).unwrap_or_default();
                let error = format!("{}@{} ends again and again: {last}", plan.name, plan.host);
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
    pub(super) fn leave(&mut self, caller: u64) {
        self.waiters.retain(|waiter| waiter.caller.id != caller);
        if self.held == Some(caller) {
            self.held = None;
            self.read_manifests();
        }
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
            ready: role.life.is_ready() && !role.liveness.is_failing(),
            state: match role.life.is_ready() && role.liveness.is_failing() {
                true => "unhealthy".into(),
                false => role.life.word().into(),
            },
            restarts: role.life.restarts,
            argv: role.argv.clone(),
            reason: role.trouble.clone(),
        };
        Status {
            hosts: self.hosts.status(),
            roles: self.roles.iter().map(role).collect(),
            port: self.port,
            ids: mapped_ids(),
        }
    }
}

/// An error and its causes on one line.
pub fn text(error: &SupervisorError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// How many ids this user namespace has.
fn mapped_ids() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok()).sum()
}
