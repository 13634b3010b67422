//! `minilab up`: makes a lab or starts it again, and waits until its nodes are Ready.
//!
//! ```text
//! check ─ lock ─ keys ─ files ─ plan.json ─ keeper ─ … ─ every role serves ─ lab.yaml ─ commit ─ nodes Ready
//!   └──────────────── a failure of a first `up` removes what it made ────────┘
//! ```
//! A directory without `lab.yaml` is what a killed first `up` left: the next one starts afresh.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::progress::Progress;
use super::{Answer, Outcome, Trouble, doctor, down, kubeconfig, status};
use crate::lab::files;
use crate::lab::launch::{Launch, Next, Port};
use crate::lab::material::Material;
use crate::lab::paths::Profile;
use crate::lab::plan::{Contents, Plan, plan};
use crate::lab::protocol::Report;
use crate::lab::spec::{Spec, USUAL_PORT};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Up {
    /// How many nodes [default: 2]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// How the paths are set [default: default, which is kubeadm's]
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// The API server's port on 127.0.0.1 [default: 6443, or the next free one]
    #[arg(long)]
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

/// How long to wait, and for what.
struct Wait {
    until: Instant,
    for_api_only: bool,
}

/// The command that starts a lab, for messages.
pub fn command_line(name: &str) -> String {
    if name == "minilab" { "minilab up".into() } else { format!("minilab --lab {name} up") }
}

/// The lab's spec as it was written.
pub fn read_spec(lab: &LabDir) -> anyhow::Result<Spec> {
    let path = lab.state.join("lab.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(Spec::from_yaml(&text)?)
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
        progress.begin("Checking this machine");
        doctor::quick(lab)?;
        progress.done("Checked this machine");
        let lock = lab.lock()?;
        if lab.is_running() {
            return self.already(lab, progress);
        }
        let first = !lab.exists();
        if first {
            down::empty(lab)?;
        }
        let wait = Wait {
            until: Instant::now() + Duration::from_secs(self.timeout),
            for_api_only: self.no_wait,
        };
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
        drop(lock);
        let ready = if self.no_wait { Ok(Answer::Done) } else { self.wait(lab, &plan, wait.until, progress) };
        self.say_goodbye(lab, &spec, merged, progress);
        ready
    }

    /// Everything up to a lab whose roles all serve.
    fn make(&self, lab: &LabDir, wait: &Wait, progress: &mut Progress) -> Result<(Spec, Plan, Material), Trouble> {
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
        launch.commit()?;
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
        let other = self.nodes.is_some_and(|nodes| nodes != spec.nodes)
            || self.profile.is_some_and(|profile| profile != spec.profile);
        if other {
            let what = format!("lab {} has {} nodes and profile {}", lab.name, spec.nodes, spec.profile);
            let remedy = "`minilab delete` first, or make another one with --lab NAME";
            return Err(Trouble::new(Answer::Usage, what, remedy));
        }
        spec.port = self.port.unwrap_or(spec.port);
        self.checked(spec)
    }

    fn checked(&self, spec: Spec) -> Result<(Spec, Port), Trouble> {
        let settings = spec.check().map_err(|error| Trouble {
            error: error.into(),
            answer: Answer::Usage,
            remedy: None,
        })?;
        let waiting = settings.unplanned();
        if !waiting.is_empty() {
            eprintln!(
                "warning: this version cannot set {} yet; they stay as kubeadm has them",
                waiting.join(", ")
            );
        }
        let port = if self.port.is_some() { Port::Exactly(spec.port) } else { Port::From(spec.port) };
        Ok((spec, port))
    }

    fn already(&self, lab: &LabDir, progress: &mut Progress) -> Outcome {
        let spec = read_spec(lab)?;
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
        let missing = super::runtime()?.block_on(status::wait_for_nodes(&lab.kubeconfig(), &names, limit));
        match missing {
            Ok(missing) if missing.is_empty() => {
                progress.done(&format!("{} nodes are Ready", names.len()));
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
                remedy: Some("`minilab logs kube-apiserver` and `minilab status` say why".into()),
            }),
        }
    }

    fn say_goodbye(
        &self,
        lab: &LabDir,
        spec: &Spec,
        merged: Option<anyhow::Result<kubeconfig::Merged>>,
        progress: &mut Progress,
    ) {
        let took = progress.elapsed();
        progress.clear();
        let (merged, problem) = match merged {
            Some(Ok(merged)) => (Some(merged), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        progress.json(&json!({
            "result": "up",
            "lab": lab.name,
            "server": format!("https://127.0.0.1:{}", spec.port),
            "kubeconfig": lab.kubeconfig(),
            "context": merged.as_ref().map(|merged| &merged.context),
            "previousContext": merged.as_ref().and_then(|merged| merged.previous.as_ref()),
            "tookMs": took.as_secs_f64() * 1000.0,
        }));
        if let Some(error) = problem {
            eprintln!("warning: your kubeconfig is unchanged: {error:#}");
        }
        if self.quiet || self.output.json() {
            return;
        }
        eprintln!("Lab {} is up at https://127.0.0.1:{} ({} ms)", lab.name, spec.port, took.as_millis());
        let option = if lab.name == "minilab" { String::new() } else { format!(" --lab {}", lab.name) };
        let kubectl = match &merged {
            Some(merged) => {
                eprintln!("{}", merged.line());
                "kubectl".to_owned()
            }
            None => format!("minilab{option} kubectl"),
        };
        eprintln!("\n  {kubectl} get nodes -o wide");
        eprintln!(
            "  {kubectl} run web --image=minilab/toolbox --restart=Never -- sh -c 'while :; do date; sleep 1; done'"
        );
        eprintln!("  minilab{option} down");
    }

    /// Host by host, what would be written and run.
    fn print_plan(&self, lab: &LabDir) -> Outcome {
        let (spec, _) = self.spec(lab)?;
        let plan = plan(&spec);
        if self.output.json() {
            super::print_json(&plan)?;
            return Ok(Answer::Done);
        }
        print!("{}", in_words(&plan));
        Ok(Answer::Done)
    }
}

/// Finds out whether it was the machine's fault, and what helps then.
fn explained(lab: &LabDir, trouble: Trouble) -> Trouble {
    let text = format!("{:#}", trouble.error);
    if text.contains("No space left on device") {
        let remedy = "free some space, or keep labs elsewhere with --state-dir DIR".to_owned();
        return Trouble { answer: Answer::MachineCannot, remedy: Some(remedy), ..trouble };
    }
    match doctor::what_is_missing(lab) {
        Some(remedy) => Trouble { answer: Answer::MachineCannot, remedy: Some(remedy), ..trouble },
        None => trouble,
    }
}

/// The end of the log that was written last: the lab that has it is about to be removed.
fn show_last_log(lab: &LabDir) {
    let logs = std::fs::read_dir(lab.state.join("logs")).into_iter().flatten().flatten();
    // The keeper's own log speaks of others' ends.
    let logs = logs.filter(|entry| entry.file_name() != "minilab-keeper.log");
    let newest = logs.max_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    let Some(newest) = newest else { return };
    let text = std::fs::read(newest.path()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("last lines of {}:", newest.file_name().to_string_lossy());
    lines[lines.len().saturating_sub(8)..].iter().for_each(|line| eprintln!("  {line}"));
}

/// Shows what the keeper reports until every role serves, or the API server alone when that is enough.
///
/// A lab whose API server serves by the deadline can be looked into, and is not given up.
fn follow(launch: &Launch, spec: &mut Spec, wait: &Wait, progress: &mut Progress) -> Result<(), Trouble> {
    let mut serving = false;
    while !(wait.for_api_only && serving) {
        let report = match launch.next(wait.until)? {
            Next::Report(report) => report,
            Next::Late if serving => return Ok(()),
            Next::Late => return Err(anyhow::anyhow!("the API server does not serve in time").into()),
            Next::Gone => return Err(anyhow::anyhow!("the lab ended while it was starting").into()),
        };
        match report {
            Report::Listening { port } => {
                if port != spec.port {
                    progress.note(&format!("127.0.0.1:{} is taken; this lab uses {port}", spec.port));
                }
                spec.port = port;
            }
            Report::Step { what, micros } => progress.tell_done(&what, Duration::from_micros(micros)),
            Report::Ready { role, host, micros } => {
                serving |= role == "kube-apiserver";
                progress.tell_done(&format!("{role}@{host} serves"), Duration::from_micros(micros));
            }
            Report::Ended { role, host, how, log } => {
                progress.note(&format!("{role}@{host} ended ({how}) and is started again: {}", log.display()));
            }
            Report::Up { .. } => {
                progress.done("Every role serves");
                return Ok(());
            }
            Report::Failed { error, remedy } => {
                return Err(Trouble { error: anyhow::anyhow!(error), answer: Answer::Failed, remedy });
            }
        }
    }
    Ok(())
}

/// A plan for people: addresses, files, and the command lines roles are started with.
fn in_words(plan: &Plan) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for host in &plan.hosts {
        let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "host {}  {}", host.name, addresses.join(" "));
        for file in &host.files {
            let _ = writeln!(text, "  file {:04o} {}", file.mode, file.path.display());
        }
        for role in &host.roles {
            let planned = |path: &std::path::Path| {
                let file = host.files.iter().find(|file| file.path == path);
                match file.map(|file| &file.contents) {
                    Some(Contents::Text(text)) => Ok(text.clone()),
                    _ => Err(std::io::ErrorKind::NotFound.into()),
                }
            };
            let argv =
                role.command.argv(planned).map_or_else(|error| error.to_string(), |argv| argv.join(" "));
            let _ = writeln!(text, "  role {argv}");
        }
    }
    text
}
