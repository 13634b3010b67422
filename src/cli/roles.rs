//! `minilab restart|stop|start ROLE[@HOST]`.

use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{Answer, Outcome, Output, Trouble};
use crate::lab::plan::{Plan, RolePlan, from_manifest};
use crate::lab::protocol::{Control, Reply, Request};
use crate::lab::state::LabDir;

/// Which role, and how the answer is printed.
#[derive(Args)]
struct Which {
    /// For example kubelet@node-1; without a host, on every host that has it
    #[arg(value_name = "ROLE[@HOST]")]
    role: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
pub struct Restart {
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
pub struct Stop {
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
pub struct Start {
    #[command(flatten)]
    which: Which,
}

impl Restart {
    pub fn run(self, lab: &LabDir) -> Outcome {
        self.which.ask(lab, "restarted", |_| None, |role, host| Request::Restart { role, host })
    }
}

impl Stop {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let idle = |state: &str| match state {
            "stopped" => Some("was not running"),
            "finished" => Some("had already done its work"),
            _ => None,
        };
        self.which.ask(lab, "stopped", idle, |role, host| Request::Stop { role, host })
    }
}

impl Start {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let idle = |state: &str| (state == "ready").then_some("already runs");
        self.which.ask(lab, "started", idle, |role, host| Request::Start { role, host })
    }
}

/// The roles a word means; a word that means none is told which there are.
pub fn named(lab: &LabDir, word: &str) -> Result<Vec<RolePlan>, Trouble> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
    let (name, host) = parse(word);
    let meant = |role: &&RolePlan| role.name == name && host.as_ref().is_none_or(|host| *host == role.host);
    let mut found: Vec<RolePlan> = plan.roles().filter(meant).cloned().collect();
    let adopted = from_manifest(&name);
    // What runs because somebody put a manifest there is in no plan.
    if found.is_empty() && meant(&&adopted) && by_hand(lab, &adopted) {
        found.push(adopted);
    }
    if found.is_empty() {
        let there: Vec<String> = plan.roles().map(|role| format!("{}@{}", role.name, role.host)).collect();
        let remedy = match name.as_str() {
            "etcd" => "kube-apiserver: its store is inside it, there is no etcd here".to_owned(),
            "coredns" => {
                "`kubectl -n kube-system rollout restart deployment/coredns`: it runs in pods".to_owned()
            }
            _ => format!("one of {}", there.join(", ")),
        };
        return Err(Trouble::new(Answer::Usage, format_args!("there is no role {word}"), remedy));
    }
    Ok(found)
}

/// Whether the manifest a role would be started from is there.
fn by_hand(lab: &LabDir, role: &RolePlan) -> bool {
    let path = role.command.watched().map(|path| path.strip_prefix("/").unwrap_or(path));
    let plain = role.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain && path.is_some_and(|path| lab.host(&role.host).join(path).is_file())
}

/// `kubelet@node-1` as a role and perhaps a host.
fn parse(word: &str) -> (String, Option<String>) {
    match word.split_once('@') {
        Some((role, host)) => (role.to_owned(), Some(host.to_owned())),
        None => (word.to_owned(), None),
    }
}

impl Which {
    /// `idle` says of a role's state why there is nothing to do; when that is so of all, nothing is done.
    fn ask(
        &self,
        lab: &LabDir,
        done: &str,
        idle: fn(&str) -> Option<&'static str>,
        request: fn(String, Option<String>) -> Request,
    ) -> Outcome {
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        let (role, host) = parse(&self.role);
        named(lab, &self.role)?;
        if let Reply::Status(status) = Control::connect(lab)?.ask(&Request::Status)? {
            let mut meant = status
                .roles
                .iter()
                .filter(|is| is.name == role && host.as_ref().is_none_or(|at| *at == is.host));
            let first = meant.next().and_then(|is| idle(&is.state));
            if let Some(why) = first.filter(|_| meant.all(|is| idle(&is.state).is_some())) {
                return self.say(why, &json!({"result": "unchanged", "role": self.role}));
            }
        }
        let began = Instant::now();
        match Control::connect(lab)?.ask(&request(role, host))? {
            Reply::Failed { error } => {
                let remedy = format!("`{} logs {}` says more", super::up::myself(lab), self.role);
                Err(Trouble::new(Answer::Failed, error, remedy))
            }
            _ => {
                let took = began.elapsed().as_secs_f64() * 1000.0;
                let said = format!("{done} ({took:.1} ms)");
                self.say(&said, &json!({"result": done, "role": self.role, "tookMs": took}))
            }
        }
    }

    fn say(&self, text: &str, answer: &serde_json::Value) -> Outcome {
        match self.output.json() {
            true => super::print_json(answer)?,
            false => eprintln!("{} {text}", self.role),
        }
        Ok(Answer::Done)
    }
}
