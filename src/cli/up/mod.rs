//! `minilab up`: makes a lab or starts it again, and waits until its nodes are Ready.
//!
//! ```text
//! check ─ lock ─ keys ─ files ─ plan.json ─ keeper ─ … ─ every role serves ─ lab.yaml ─ commit ─ nodes Ready
//!   └──────────────── a failure of a first `up` removes what it made ────────┘
//! ```
//! A directory without `lab.yaml` is what a killed first `up` left: the next one starts afresh.

mod follow;
mod words;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::progress::Progress;
use super::{Answer, Outcome, Trouble, doctor, down, kubeconfig, status};
use crate::lab::files;
use crate::lab::launch::{Launch, Port};
use crate::lab::material::Material;
use crate::lab::paths::Profile;
use crate::lab::plan::{Plan, plan};
use crate::lab::spec::{Spec, USUAL_PORT};
use crate::lab::state::LabDir;

use follow::{Wait, explained, follow, show_last_log};
pub use words::myself;

#[derive(Args)]
pub struct Up {
    /// How many nodes [default: 2]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// How the paths are set [default: default, which is kubeadm's]
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// The API server's port on 127.0.0.1 [default: 6443, or the next free one]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Do not wait until the nodes are Ready
    #[arg(long)]
    no_wait: bool,
    /// How many seconds to wait until all of it is Ready
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// Print the plan and make nothing
    #[arg(long)]
    dry_run: bool,
    /// The kubeconfig to add the context to, instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Leave your kubeconfig as it is
    #[arg(long, conflicts_with = "kubeconfig")]
    keep_context: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: super::Output,
}

/// The lab's spec as it was written.
pub fn read_spec(lab: &LabDir) -> anyhow::Result<Spec> {
    let path = lab.state.join("lab.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Spec::from_yaml(&text)
        .with_context(|| format!("{} is damaged; mend it, or `{} delete`", path.display(), myself(lab)))
}

/// How long what a killed `up` had begun may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// Waits for a lab to be gone whose `up` was killed before it was content. Who holds the lab's lock knows
/// that one nobody committed is what such an `up` left, and ends by itself.
fn await_uncommitted(lab: &LabDir) -> Result<(), Trouble> {
    let until = Instant::now() + ENDING;
    while lab.is_running() && !lab.is_committed() {
        if Instant::now() > until {
            let what = format!("lab {} is still being ended after an `up` that did not finish", lab.name);
            return Err(Trouble::new(Answer::Failed, what, "try again in a moment"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

const STOPPED: &str = "the lab was stopped by another command while it started";

/// Resolves when the lab runs no more.
async fn ended(lab: &LabDir) {
    while lab.is_running() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn stopped(lab: &LabDir) -> Trouble {
    Trouble::new(Answer::NotRunning, STOPPED, format!("`{} up` starts it again", myself(lab)))
}

/// A `harden` or `soften` that was killed half-way is undone by whoever comes next.
fn mend(lab: &LabDir, spec: &Spec, progress: &mut Progress) {
    match crate::lab::switch::mend(lab, spec) {
        Ok(false) => {}
        Ok(true) => progress.note("A switch that was cut short is undone"),
        Err(error) => progress.note(&format!("A switch that was cut short is not undone: {error}")),
    }
}

impl Up {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let mut progress = Progress::new(self.output.json(), self.quiet);
        let outcome = self.start(lab, &mut progress);
        progress.clear();
        if let Err(trouble) = &outcome {
            progress.json(&json!({"result": "failed", "error": format!("{:#}", trouble.error),
                "remedy": trouble.remedy}));
        }
        outcome
    }

    fn start(&self, lab: &LabDir, progress: &mut Progress) -> Outcome {
        if self.dry_run {
            return self.print_plan(lab);
        }
        // A wrong value is said before anything is done.
        if let Some(nodes) = self.nodes.filter(|_| !lab.exists()) {
            self.checked(Spec::new(&lab.name, nodes, Profile::default(), USUAL_PORT))?;
        }
        progress.begin("Checking this machine");
        doctor::quick(lab)?;
        let lock = lab.lock()?;
        await_uncommitted(lab)?;
        if lab.is_running() {
            return self.already(lab, progress);
        }
        progress.done("Checked this machine");
        let first = !lab.exists();
        if first {
            down::empty(lab)?;
        }
        let wait =
            Wait { until: Instant::now() + Duration::from_secs(self.timeout), for_api_only: self.no_wait };
        let started = self.make(lab, &wait, progress);
        let (spec, plan, material) = match started {
            Ok(made) => made,
            Err(trouble) => {
                progress.clear();
                let mut trouble = explained(lab, trouble);
                if first {
                    show_last_log(lab);
                    let here = lab.state.display().to_string();
                    trouble.remedy = trouble.remedy.filter(|remedy| !remedy.contains(&here));
                    // The error that matters is the first one.
                    let _ = down::remove(lab);
                }
                return Err(trouble);
            }
        };
        let merged = match self.keep_context {
            true => None,
            false => Some(kubeconfig::merge(lab, &spec, &material, self.kubeconfig.as_deref())),
        };
        mend(lab, &spec, progress);
        drop(lock);
        let ready = if self.no_wait { Ok(Answer::Done) } else { self.wait(lab, &plan, wait.until, progress) };
        if lab.is_running() {
            self.say_goodbye(lab, &spec, merged, progress);
        }
        ready
    }

    /// Everything up to a lab whose roles all serve.
    fn make(
        &self,
        lab: &LabDir,
        wait: &Wait,
        progress: &mut Progress,
    ) -> Result<(Spec, Plan, Material), Trouble> {
        let (mut spec, port) = self.spec(lab)?;
        let fresh = !lab.state.join("pki/tokens.json").exists();
        progress.begin(if fresh { "Issuing certificates" } else { "Reading certificates" });
        let material = Material::of(lab)?;
        progress.done(if fresh { "Issued certificates" } else { "Read certificates" });
        let plan = plan(&spec);
        progress.begin("Writing files");
        let applied = files::apply(lab, &plan, &material)?;
        let bytes = serde_json::to_vec(&plan).context("write the plan")?;
        lab.write(&lab.plan_file(), 0o600, &bytes)?;
        progress.done(&format!("Wrote {} files for {} hosts", applied.written, plan.hosts.len()));
        for edited in applied.edited {
            progress.note(&format!("{edited} was changed by hand and stays as it is"));
        }
        progress.begin("Starting hosts and roles");
        let launch = Launch::start(lab, port)?;
        follow(&launch, &mut spec, wait, progress)?;
        kubeconfig::write_own(lab, spec.port, &material)?;
        lab.write(&lab.state.join("lab.yaml"), 0o600, spec.to_yaml().as_bytes())?;
        launch.commit().map_err(|error| if lab.is_running() { error.into() } else { stopped(lab) })?;
        Ok((spec, plan, material))
    }

    /// What the lab is to be, and which ports will do.
    fn spec(&self, lab: &LabDir) -> Result<(Spec, Port), Trouble> {
        if !lab.exists() {
            let (nodes, profile) = (self.nodes.unwrap_or(2), self.profile.unwrap_or_default());
            let spec = Spec::new(&lab.name, nodes, profile, self.port.unwrap_or(USUAL_PORT));
            return self.checked(spec);
        }
        let mut spec = read_spec(lab)?;
        self.same_lab(lab, &spec)?;
        spec.port = self.port.unwrap_or(spec.port);
        self.checked(spec)
    }

    /// A lab that is there keeps its shape.
    fn same_lab(&self, lab: &LabDir, spec: &Spec) -> Result<(), Trouble> {
        let other = self.nodes.is_some_and(|nodes| nodes != spec.nodes)
            || self.profile.is_some_and(|profile| profile != spec.profile);
        if other {
            let what = format!("lab {} has {} nodes and profile {}", lab.name, spec.nodes, spec.profile);
            let remedy = format!("`{} delete` first, or make another one with --lab NAME", myself(lab));
            return Err(Trouble::new(Answer::Usage, what, remedy));
        }
        Ok(())
    }

    fn checked(&self, spec: Spec) -> Result<(Spec, Port), Trouble> {
        spec.check().map_err(|error| Trouble { error: error.into(), answer: Answer::Usage, remedy: None })?;
        let port = if self.port.is_some() { Port::Exactly(spec.port) } else { Port::From(spec.port) };
        Ok((spec, port))
    }

    fn already(&self, lab: &LabDir, progress: &mut Progress) -> Outcome {
        let spec = read_spec(lab)?;
        self.same_lab(lab, &spec)?;
        if let Some(port) = self.port.filter(|port| *port != spec.port) {
            let what = format!("lab {} runs at port {}, not {port}", lab.name, spec.port);
            let remedy = format!("`{0} down`, then `{0} up --port {port}`", myself(lab));
            return Err(Trouble::new(Answer::Usage, what, remedy));
        }
        mend(lab, &spec, progress);
        progress.clear();
        let server = format!("https://127.0.0.1:{}", spec.port);
        progress.json(&json!({"result": "running", "lab": lab.name, "server": server}));
        progress.note(&format!("Lab {} already runs at {server}", lab.name));
        Ok(Answer::Done)
    }

    fn wait(&self, lab: &LabDir, plan: &Plan, until: Instant, progress: &mut Progress) -> Outcome {
        progress.begin("Waiting for the nodes");
        let names = status::node_names(plan);
        // However little time is left, an answer that is there already counts.
        let limit = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(500));
        let kubeconfig = lab.kubeconfig();
        let missing = super::runtime()?.block_on(async {
            tokio::select! {
                missing = status::wait_for_nodes(&kubeconfig, &names, limit) => missing,
                () = ended(lab) => Err(anyhow::anyhow!(STOPPED)),
            }
        });
        if !lab.is_running() {
            return Err(stopped(lab));
        }
        let me = myself(lab);
        match missing {
            Ok(missing) if missing.is_empty() => {
                let nodes = if names.len() == 1 { "node is" } else { "nodes are" };
                progress.done(&format!("{} {nodes} Ready", names.len()));
                Ok(Answer::Done)
            }
            Ok(missing) => Err(Trouble::new(
                Answer::NotRunning,
                format_args!("not Ready after {} s: {}", self.timeout, missing.join(", ")),
                format!(
                    "`minilab logs kubelet@{}` and `minilab status` say why; the lab still runs",
                    missing[0]
                ),
            )),
            Err(error) => Err(Trouble {
                error,
                answer: Answer::NotRunning,
                remedy: Some(format!("`{me} logs kube-apiserver` and `{me} status` say why")),
            }),
        }
    }

    /// Host by host, what would be written and run.
    fn print_plan(&self, lab: &LabDir) -> Outcome {
        let (spec, _) = self.spec(lab)?;
        let plan = plan(&spec);
        if self.output.json() {
            super::print_json(&plan)?;
            return Ok(Answer::Done);
        }
        print!("{}", words::in_words(&plan));
        Ok(Answer::Done)
    }
}
