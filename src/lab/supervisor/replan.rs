//! The supervisor goes by another plan: hosts that come and go, roles that a switch turns.

use std::collections::BTreeSet;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::control::{Caller, refusal};
use super::events::Supervisor;
use super::requests::{Waiter, text};
use super::role::{Input, State};
use super::start::Role;
use crate::lab::plan::Plan;

impl Supervisor {
    fn read_plan(&self) -> anyhow::Result<Plan> {
        let path = self.lab.plan_file();
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
    }

    /// Goes by the plan on disk within the hosts there are, restarts roles, and answers when they serve.
    pub(super) fn turn_over(&mut self, restart: &[String], caller: Caller) {
        let plan = match self.read_plan() {
            Ok(plan) => plan,
            Err(error) => return caller.answer(&refusal(format!("{error:#}")), None),
        };
        // Wire closes with the API server's turn, when what replaces the old way is there; it opens at once.
        let turns =
            self.hosts.opens(&plan.bars) || restart.iter().any(|role| role.starts_with("kube-apiserver@"));
        if turns && let Err(error) = self.hosts.bar(&plan.bars) {
            return caller.answer(&refusal(text(&error)), None);
        }
        let mut turned = self.take_in(&plan);
        for at in 0..self.roles.len() {
            let role = &self.roles[at];
            let meant = restart.contains(&format!("{}@{}", role.plan.name, role.plan.host));
            if meant && role.life.state != State::Stopped && !turned.contains(&at) {
                self.step(at, Input::Restart);
                turned.insert(at);
            }
        }
        // A role of a host whose plug is pulled serves when the host does, and nobody waits for that.
        let there = |at: &usize| self.hosts.get(&self.roles[*at].plan.host).is_some();
        let roles = turned.into_iter().filter(there).map(|at| (at, self.roles[at].life.restarts)).collect();
        self.waiters.push(Waiter { caller, roles, serving: true });
    }

    /// Roles the plan brings, changes and takes; those it brings or changes turn.
    fn take_in(&mut self, plan: &Plan) -> BTreeSet<usize> {
        let same = |one: &crate::lab::plan::RolePlan, other: &crate::lab::plan::RolePlan| {
            one.name == other.name && one.host == other.host
        };
        let mut turned = BTreeSet::new();
        for at in 0..self.roles.len() {
            let role = &mut self.roles[at];
            match plan.roles().find(|planned| same(planned, &role.plan)) {
                None => {
                    role.leaving = true;
                    self.step(at, Input::Stop);
                }
                // One that was on its way out stays.
                Some(planned) if role.leaving || *planned != role.plan => {
                    let stopped = role.life.state == State::Stopped && !role.leaving;
                    (role.leaving, role.plan) = (false, planned.clone());
                    if !stopped && !planned.one_shot {
                        self.step(at, Input::Restart);
                        turned.insert(at);
                    }
                }
                Some(_) => {}
            }
        }
        for planned in plan.roles() {
            let known = self.roles.iter().any(|role| same(&role.plan, planned));
            if !known && self.hosts.plans().iter().any(|host| host.name == planned.host) {
                self.roles.push(Role::new(planned.clone()));
                turned.insert(self.roles.len() - 1);
            }
        }
        turned
    }

    /// Roles that were to go and have ended are no more.
    pub(super) fn forget_leaving(&mut self) {
        let over = |role: &Role| role.leaving && !role.life.is_running();
        if self.roles.iter().any(over) {
            self.forget_roles(over);
        }
    }

    /// Takes in the plan on disk: nodes that come start with their roles, nodes that go have their plug pulled.
    pub(super) fn replan(&mut self) -> anyhow::Result<()> {
        let plan = self.read_plan()?;
        let changed = self.hosts.replan(&plan);
        for host in &changed.go {
            for at in
                (0..self.roles.len()).filter(|at| self.roles[*at].plan.host == *host).collect::<Vec<_>>()
            {
                self.step(at, Input::Stop);
            }
            if let Some(running) = self.hosts.get(host) {
                kill(Pid::from_raw(running.pid), Signal::SIGKILL).context("pull the plug")?;
            }
        }
        self.forget_roles(|role| changed.go.contains(&role.plan.host));
        for host in &changed.come {
            let fresh = plan.roles().filter(|role| role.host == *host);
            self.roles.extend(fresh.map(|role| Role::new(role.clone())));
            self.start_host(host).map_err(|error| anyhow::anyhow!(text(&error)))?;
        }
        Ok(())
    }

    /// Roles that are gone for good leave the list, and whoever waits for them is told.
    fn forget_roles(&mut self, gone: impl Fn(&Role) -> bool) {
        let mut places = Vec::with_capacity(self.roles.len());
        let mut next = 0;
        for role in &self.roles {
            places.push((!gone(role)).then_some(next));
            next += usize::from(!gone(role));
        }
        self.waiters.retain_mut(|waiter| {
            let moved: Option<Vec<(usize, u32)>> =
                waiter.roles.iter().map(|(at, before)| places[*at].map(|at| (at, *before))).collect();
            match moved {
                Some(roles) => waiter.roles = roles,
                None => {
                    waiter.caller.answer(&refusal("it was taken out of the lab"), None);
                    return false;
                }
            }
            true
        });
        self.roles.retain(|role| !gone(role));
    }
}
