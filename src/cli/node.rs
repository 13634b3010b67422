//! `minilab node add|remove`: nodes that join the running lab, and leave it.
//!
//! A node that is added is a new host that knows a token and, unless told otherwise, the digest of the
//! cluster's CA; `kubeadm join` and TLS bootstrapping do the rest, and the CertificateSigningRequest is
//! there to be looked at. What `up` provisions at the lab's making takes no such way.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::{Node as NodeObject, Secret};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::{Answer, Outcome, Output, Trouble, down, status, up};
use crate::client;
use crate::lab::files;
use crate::lab::material::Material;
use crate::lab::paths::{Mode, Setting};
use crate::lab::plan::{Plan, plan};
use crate::lab::protocol::{Control, Reply, Request};
use crate::lab::spec::{MOST_NODES, Spec};
use crate::lab::state::LabDir;

/// How long a token made for a join lives.
const TOKEN_SECONDS: i64 = 24 * 3600;

#[derive(Args)]
pub struct Node {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Let one more node join the running lab
    Add(Add),
    /// Take a node out of the running lab: its Node object, its host and its files
    Remove(Remove),
}

#[derive(Args)]
struct Add {
    /// Believe whoever answers with the token's signature, without knowing the cluster's CA (kubeadm's flag)
    #[arg(long)]
    discovery_token_unsafe_skip_ca_verification: bool,
    /// How many seconds to wait until the node is Ready
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Remove {
    /// For example node-3
    #[arg(value_name = "NODE")]
    name: String,
    #[command(flatten)]
    output: Output,
}

impl Node {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        match self.what {
            What::Add(add) => add.run(lab),
            What::Remove(remove) => remove.run(lab),
        }
    }
}

impl Add {
    fn run(self, lab: &LabDir) -> Outcome {
        let (began, lock) = (Instant::now(), lab.lock()?);
        let mut spec = up::read_spec(lab)?;
        let open =
            self.discovery_token_unsafe_skip_ca_verification || spec.modes().insecure(Setting::NodeJoin);
        let join = if open { Mode::Insecure } else { Mode::Hardened };
        let Some(number) = spec.add(join) else {
            return Err(Trouble::new(
                Answer::Usage,
                format_args!("a lab has at most {MOST_NODES} nodes"),
                "remove one first",
            ));
        };
        let name = format!("node-{number}");
        if open {
            eprintln!(
                "warning: {name} joins without knowing the cluster's CA: whoever answers on the wire and knows the \
                 token becomes its cluster (--discovery-token-unsafe-skip-ca-verification)"
            );
        }
        let material = Material::of(lab)?;
        let runtime = super::runtime()?;
        runtime
            .block_on(async { ensure_token(&client::from_kubeconfig(lab.kubeconfig())?, &material).await })?;
        change(lab, &spec, &material)?;
        drop(lock);
        let limit = Duration::from_secs(self.timeout);
        let names = [name.clone()].into();
        let missing = runtime.block_on(status::wait_for_nodes(&lab.kubeconfig(), &names, limit));
        let me = up::myself(lab);
        match missing {
            Ok(missing) if missing.is_empty() => {
                say(self.output, "added", &name, began)?;
                Ok(Answer::Done)
            }
            Ok(_) => Err(Trouble::new(
                Answer::NotRunning,
                format_args!("{name} is not Ready after {} s", self.timeout),
                format!("`{me} logs kubeadm@{name}` and `{me} logs kubelet@{name}` say why"),
            )),
            Err(error) => Err(error.into()),
        }
    }
}

impl Remove {
    fn run(self, lab: &LabDir) -> Outcome {
        let (began, _lock) = (Instant::now(), lab.lock()?);
        let mut spec = up::read_spec(lab)?;
        let number = self.name.strip_prefix("node-").and_then(|number| number.parse().ok());
        if !number.is_some_and(|number| spec.remove(number)) {
            let there: Vec<String> = spec.numbers().map(|number| format!("node-{number}")).collect();
            let what = match there.contains(&self.name) {
                true => format!("{} is the last node, and a lab keeps one", self.name),
                false => format!("there is no node {:?}: this lab has {}", self.name, there.join(", ")),
            };
            return Err(Trouble::new(Answer::Usage, what, "`minilab status` lists hosts and nodes"));
        }
        let material = Material::of(lab)?;
        // The host first: a kubelet that lives would register its Node again.
        change(lab, &spec, &material)?;
        super::runtime()?.block_on(forget(lab, &self.name))?;
        down::remove_tree(lab, &lab.host(&self.name))?;
        say(self.output, "removed", &self.name, began)?;
        if !self.output.json() {
            eprintln!(
                "note: nobody revokes its client certificate; whoever copied it is system:node:{} until it ends",
                self.name
            );
        }
        Ok(Answer::Done)
    }
}

fn say(output: Output, done: &str, name: &str, began: Instant) -> anyhow::Result<()> {
    let took = began.elapsed().as_secs_f64() * 1000.0;
    match output.json() {
        true => super::print_json(&json!({"result": done, "node": name, "tookMs": took}))?,
        false => eprintln!("{name} {done} ({took:.1} ms)"),
    }
    Ok(())
}

/// Writes the new plan and its files, and lets the lab go by it.
fn change(lab: &LabDir, spec: &Spec, material: &Material) -> anyhow::Result<()> {
    let plan: Plan = plan(spec);
    files::apply(lab, &plan, material)?;
    lab.write(&lab.plan_file(), 0o600, &serde_json::to_vec(&plan).context("write the plan")?)?;
    if let Reply::Failed { error } = Control::connect(lab)?.ask(&Request::Replan)? {
        bail!(error);
    }
    lab.write(&lab.state.join("lab.yaml"), 0o600, spec.to_yaml().as_bytes())?;
    // It reads the inventory of nodes when it starts.
    let approver = "csr-approver".to_owned();
    if plan.roles().any(|role| role.name == approver) {
        Control::connect(lab)?.ask(&Request::Restart { role: approver, host: None })?;
    }
    Ok(())
}

/// The lab's bootstrap token lives a day; after that it is made again, as `kubeadm token create TOKEN` would.
async fn ensure_token(client: &Client, material: &Material) -> anyhow::Result<()> {
    let (id, secret) = material.bootstrap_token().split_once('.').context("the token has no dot")?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let name = format!("bootstrap-token-{id}");
    if secrets.get_opt(&name).await.context("look for the bootstrap token")?.is_some() {
        return Ok(());
    }
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(TOKEN_SECONDS);
    let end = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut data = serde_json::Map::new();
    for (key, value) in [
        ("token-id", id),
        ("token-secret", secret),
        ("expiration", end.as_str()),
        ("usage-bootstrap-authentication", "true"),
        ("usage-bootstrap-signing", "true"),
        ("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token"),
    ] {
        data.insert(key.into(), json!(BASE64_STANDARD.encode(value)));
    }
    let token: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": name, "namespace": "kube-system"},
        "data": data,
    }))?;
    secrets.create(&PostParams::default(), &token).await.context("make a bootstrap token")?;
    Ok(())
}

/// Deletes the Node object; its pods follow it.
async fn forget(lab: &LabDir, name: &str) -> anyhow::Result<()> {
    let nodes: Api<NodeObject> = Api::all(client::from_kubeconfig(lab.kubeconfig())?);
    match nodes.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop).context("delete the Node"),
    }
}
