//! `minilab host kill|start HOST`: pull a machine's plug, and put it back.
//!
//! What is in the host ends at once and says goodbye to nobody: no kubelet marks its node, no pod hears a
//! SIGTERM. What follows is the control plane's doing, as on a real cluster: the node's lease goes stale, the
//! node turns Unknown and is tainted, its pods are marked for deletion when their tolerations run out, and
//! are gone once the node is back to say that they ended.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Answer, Outcome, Output, Trouble, status, up};
use crate::lab::plan::{HostKind, HostPlan, Plan};
use crate::lab::protocol::{Control, Reply, Request};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Host {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Pull a host's plug: everything in it is gone at once
    Kill(Kill),
    /// Start a host whose plug was pulled, with the disk it had
    Start(Start),
}

#[derive(Args)]
struct Kill {
    /// control, wire, switch or node-N
    host: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Start {
    /// control, wire, switch or node-N
    host: String,
    /// How many seconds to wait until its roles serve and its node is Ready
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    output: Output,
}

impl Host {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        match self.what {
            What::Kill(kill) => kill.run(lab),
            What::Start(start) => start.run(lab),
        }
    }
}

impl Kill {
    fn run(self, lab: &LabDir) -> Outcome {
        let began = Instant::now();
        let plan = planned(lab, &self.host)?;
        let control = Control::connect(lab)?;
        if !is_plugged_in(&control, &self.host)? {
            let remedy = format!("`{} host start {}`", up::myself(lab), self.host);
            return Err(Trouble::new(Answer::Failed, format_args!("{} does not run", self.host), remedy));
        }
        ask(&control, &Request::HostKill { host: self.host.clone() })?;
        say(self.output, "killed", &self.host, began)?;
        if !self.output.json() && plan.kind == HostKind::Node {
            eprintln!(
                "note: its node turns NotReady when its lease is 50 s old (kube-controller-manager's \
                 --node-monitor-grace-period), and its pods are evicted 300 s later (kube-apiserver's \
                 --default-unreachable-toleration-seconds); edit the manifests on control for less"
            );
        }
        Ok(Answer::Done)
    }
}

impl Start {
    fn run(self, lab: &LabDir) -> Outcome {
        let began = Instant::now();
        let plan = planned(lab, &self.host)?;
        let control = Control::connect(lab)?;
        ask(&control, &Request::HostStart { host: self.host.clone() })?;
        let until = began + Duration::from_secs(self.timeout);
        let me = up::myself(lab);
        let late = |what: String, role: &str| {
            let remedy = format!("`{me} logs {role}@{}` and `{me} status` say why", self.host);
            Trouble::new(Answer::NotRunning, format_args!("{what} after {} s", self.timeout), remedy)
        };
        if let Some(role) = await_roles(&control, &self.host, until)? {
            return Err(late(format!("{role}@{} does not serve", self.host), &role));
        }
        if plan.kind == HostKind::Node {
            let names = [self.host.clone()].into();
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(500));
            let missing =
                super::runtime()?.block_on(status::wait_for_nodes(&lab.kubeconfig(), &names, left))?;
            if !missing.is_empty() {
                return Err(late(format!("{} is not Ready", self.host), "kubelet"));
            }
        }
        say(self.output, "started", &self.host, began)?;
        Ok(Answer::Done)
    }
}

/// The host of that name, or what there is instead.
fn planned(lab: &LabDir, name: &str) -> Result<HostPlan, Trouble> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(lab.plan_file())?)?;
    let names: Vec<String> = plan.hosts.iter().map(|host| host.name.clone()).collect();
    plan.hosts.into_iter().find(|host| host.name == name).ok_or_else(|| {
        let remedy = format!("one of {}", names.join(", "));
        Trouble::new(Answer::Usage, format_args!("there is no host {name}"), remedy)
    })
}

fn is_plugged_in(control: &Control, name: &str) -> anyhow::Result<bool> {
    Ok(control.status()?.hosts.iter().any(|host| host.name == name && host.pid.is_some()))
}

fn ask(control: &Control, request: &Request) -> anyhow::Result<()> {
    match control.ask(request)? {
        Reply::Failed { error } => bail!(error),
        _ => Ok(()),
    }
}

/// Waits until every role of the host that is not stopped serves; the name of one that does not in time.
fn await_roles(control: &Control, host: &str, until: Instant) -> anyhow::Result<Option<String>> {
    loop {
        let status = control.status()?;
        let mut own = status.roles.iter().filter(|role| role.host == host);
        let Some(waiting) = own.find(|role| !role.ready && !matches!(&*role.state, "stopped" | "finished"))
        else {
            return Ok(None);
        };
        if Instant::now() > until {
            return Ok(Some(waiting.name.clone()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn say(output: Output, done: &str, host: &str, began: Instant) -> anyhow::Result<()> {
    let took = began.elapsed().as_secs_f64() * 1000.0;
    match output.json() {
        true => super::print_json(&json!({"result": done, "host": host, "tookMs": took}))?,
        false => eprintln!("{host} {done} ({took:.1} ms)"),
    }
    Ok(())
}
