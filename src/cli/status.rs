//! `minilab status`: hosts, nodes and roles of a lab, and waiting for its nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::Serialize;

use super::{Answer, Outcome, Output, Trouble, table};
use crate::client::{self, Backoff};
use crate::lab::paths::Profile;
use crate::lab::plan::{HostKind, KUBERNETES_VERSION, Plan};
use crate::lab::protocol::Control;
use crate::lab::state::LabDir;

/// How long the API server may take to list the nodes.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    output: Output,
}

/// How a lab is, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    Running,
    Degraded,
    Stopped,
    Missing,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    lab: String,
    state: State,
    profile: Option<Profile>,
    kubernetes_version: &'static str,
    server: Option<String>,
    kubeconfig: PathBuf,
    hosts: Vec<Host>,
    nodes: Vec<NodeRow>,
    roles: Vec<Role>,
    /// User and group ids the lab has: 1, or 65,537.
    ids: u32,
    /// The lab's process on the machine's side, and its pid 1.
    keeper_pid: Option<i32>,
    supervisor_pid: Option<i32>,
}

#[derive(Serialize)]
struct Host {
    name: String,
    pid: Option<i32>,
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Serialize)]
struct NodeRow {
    name: String,
    ready: bool,
}

#[derive(Serialize)]
struct Role {
    name: String,
    host: String,
    pid: Option<i32>,
    ready: bool,
    restarts: u32,
    argv: Vec<String>,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Status {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let report = look(lab)?;
        match self.output.json() {
            true => super::print_json(&report)?,
            false => print(&report)?,
        }
        Ok(if report.state == State::Running { Answer::Done } else { Answer::NotRunning })
    }
}

/// Asks everybody who knows. A lab that is not there is an answer too.
fn look(lab: &LabDir) -> Result<Report, Trouble> {
    let mut report = Report {
        lab: lab.name.clone(),
        state: State::Missing,
        profile: None,
        kubernetes_version: KUBERNETES_VERSION,
        server: None,
        kubeconfig: lab.kubeconfig(),
        hosts: Vec::new(),
        nodes: Vec::new(),
        roles: Vec::new(),
        ids: 0,
        keeper_pid: None,
        supervisor_pid: None,
    };
    if !lab.exists() {
        return Ok(report);
    }
    let spec = super::up::read_spec(lab)?;
    report.state = State::Stopped;
    report.profile = Some(spec.profile);
    report.server = Some(format!("https://127.0.0.1:{}", spec.port));
    if !lab.is_running() {
        return Ok(report);
    }
    report.state = State::Degraded;
    let control = Control::connect(lab)?;
    let pids = control.pids();
    (report.keeper_pid, report.supervisor_pid) = (Some(pids.keeper), Some(pids.supervisor));
    let status = control.status()?;
    report.ids = status.ids;
    let host = |host: crate::lab::protocol::HostStatus| Host {
        name: host.name,
        pid: host.pid,
        addresses: host.addresses,
    };
    report.hosts = status.hosts.into_iter().map(host).collect();
    report.roles = status.roles.into_iter().map(Role::from).collect();
    report.nodes = super::runtime()?.block_on(nodes(&lab.kubeconfig())).unwrap_or_default();
    let roles = report.roles.iter().all(Role::is_well);
    let nodes = report.nodes.len() == spec.nodes && report.nodes.iter().all(|node| node.ready);
    if roles && nodes && report.hosts.iter().all(|host| host.pid.is_some()) {
        report.state = State::Running;
    }
    Ok(report)
}

impl From<crate::lab::protocol::RoleStatus> for Role {
    fn from(role: crate::lab::protocol::RoleStatus) -> Self {
        let crate::lab::protocol::RoleStatus {
            name, host, pid, ready, restarts, argv, state, reason, ..
        } = role;
        Self { name, host, pid, ready, restarts, argv, state, reason }
    }
}

impl Role {
    /// It serves, or did what it runs once for.
    fn is_well(&self) -> bool {
        self.ready || self.state == "finished"
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let state = match report.state {
        State::Running => "running",
        State::Degraded => "degraded",
        State::Stopped => "stopped",
        State::Missing => "not there",
    };
    println!("lab {}: {state}, Kubernetes {}", report.lab, report.kubernetes_version);
    if let (Some(server), Some(profile)) = (&report.server, report.profile) {
        println!("server {server}, profile {profile}, kubeconfig {}", report.kubeconfig.display());
    }
    if report.roles.is_empty() {
        return Ok(());
    }
    println!();
    let pid = |pid: Option<i32>| pid.map_or_else(String::new, |pid| pid.to_string());
    table::print(
        &["HOST", "PID", "ADDRESSES", "NODE"],
        report.hosts.iter().map(|host| {
            let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
            let node = report.nodes.iter().find(|node| node.name == host.name);
            let ready = node.map_or("", |node| if node.ready { "Ready" } else { "NotReady" });
            vec![host.name.clone(), pid(host.pid), addresses.join(","), ready.to_owned()]
        }),
    )?;
    println!();
    table::print(
        &["ROLE", "HOST", "PID", "STATE", "RESTARTS"],
        report.roles.iter().map(|role| {
            let restarts = role.restarts.to_string();
            vec![role.name.clone(), role.host.clone(), pid(role.pid), role.state.clone(), restarts]
        }),
    )?;
    for (role, why) in report.roles.iter().filter_map(|role| Some((role, role.reason.as_ref()?))) {
        println!("\n{}@{} cannot be started: {why}", role.name, role.host);
    }
    Ok(())
}

/// The lab's nodes as the API server has them now.
async fn nodes(kubeconfig: &Path) -> anyhow::Result<Vec<NodeRow>> {
    let api: Api<Node> = Api::all(client::from_kubeconfig(kubeconfig)?);
    let list = tokio::time::timeout(PATIENCE, api.list(&kube::api::ListParams::default())).await??;
    Ok(list.items.iter().map(|node| NodeRow { name: name(node), ready: is_ready(node) }).collect())
}

/// The nodes a plan asks for.
pub fn node_names(plan: &Plan) -> BTreeSet<String> {
    let nodes = plan.hosts.iter().filter(|host| host.kind == HostKind::Node);
    nodes.map(|host| host.name.clone()).collect()
}

/// Watches until these nodes are Ready; answers those that are not when the time is over.
pub async fn wait_for_nodes(
    kubeconfig: &Path,
    names: &BTreeSet<String>,
    limit: Duration,
) -> anyhow::Result<Vec<String>> {
    let client = client::from_kubeconfig(kubeconfig)?;
    let mut missing = names.clone();
    let watched = watch_until_ready(client, &mut missing);
    match tokio::time::timeout(limit, watched).await {
        Ok(outcome) => outcome?,
        Err(_) => return Ok(missing.into_iter().collect()),
    }
    Ok(Vec::new())
}

async fn watch_until_ready(client: Client, missing: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let watch = watcher(Api::<Node>::all(client), watcher::Config::default());
    let mut events = std::pin::pin!(watch.backoff(Backoff::new()));
    while !missing.is_empty() {
        // A watch that fails is made anew by the backoff; time is limited outside.
        let Ok(event) = events.try_next().await else { continue };
        match event {
            Some(Event::Apply(node) | Event::InitApply(node)) if is_ready(&node) => {
                missing.remove(&name(&node));
            }
            Some(_) => {}
            None => anyhow::bail!("the API server's watch of the nodes ended"),
        }
    }
    Ok(())
}

fn name(node: &Node) -> String {
    node.metadata.name.clone().unwrap_or_default()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
