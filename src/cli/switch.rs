//! `minilab harden|soften PATH[.SETTING]|--all`: settings of the running lab, switched live.

use clap::Args;
use serde_json::json;

use super::{Answer, Outcome, Output, Trouble, up};
use crate::lab::paths::{Mode, Setting, SettingInfo, Settings, meant, rows};
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;
use crate::lab::switch::{self, Done, Switch, kubelets_reachable};

#[derive(Args)]
pub struct Harden {
    #[command(flatten)]
    what: What,
    /// Which tunnels the API server's egress takes
    #[arg(long, value_enum, value_name = "KIND")]
    with: Option<Tunnels>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tunnels {
    /// What replaced them (the default)
    Konnectivity,
    /// Historical: as until Kubernetes 1.22, which removed them
    Ssh,
}

#[derive(Args)]
pub struct Soften {
    #[command(flatten)]
    what: What,
}

#[derive(Args)]
struct What {
    /// A path or one of its settings, for example kubelet-access or apiserver-to-kubelet.ca
    #[arg(value_name = "PATH[.SETTING]", required_unless_present = "all")]
    target: Vec<String>,
    /// Every setting there is
    #[arg(long, conflicts_with = "target")]
    all: bool,
    /// Print the difference of files, command lines and objects, and change nothing
    #[arg(long)]
    show: bool,
    /// Print what comes or goes as a whole line by line too
    #[arg(long)]
    whole: bool,
    #[command(flatten)]
    output: Output,
}

impl Harden {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let targets = self.what.targets()?;
        let tunnel = targets.iter().any(|row| row.id == Setting::EgressTunnel);
        if self.with.is_some() && !tunnel {
            let what =
                "--with says which tunnels apiserver-egress takes, and nothing of it is to be hardened";
            return Err(Trouble::new(Answer::Usage, what, "`minilab harden apiserver-egress --with ssh`"));
        }
        self.what.switch(lab, |wanted| {
            targets.iter().for_each(|row| wanted.set(row.id, Mode::Hardened));
            if tunnel && self.with == Some(Tunnels::Ssh) {
                wanted.set(Setting::EgressTunnel, Mode::Partial);
            }
        })
    }
}

impl Soften {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let targets = self.what.targets()?;
        self.what.switch(lab, |wanted| targets.iter().for_each(|row| wanted.set(row.id, Mode::Insecure)))
    }
}

impl What {
    fn switch(&self, lab: &LabDir, choose: impl Fn(&mut Settings)) -> Outcome {
        if !self.show && !lab.is_running() || !lab.exists() {
            return Err(Trouble::not_running(lab));
        }
        let _lock = lab.lock()?;
        let mut spec = up::read_spec(lab)?;
        if !self.show && switch::mend(lab, &spec)? {
            eprintln!("note: the last switch, or a verify, was cut short; what it had done is undone");
            spec = up::read_spec(lab)?;
        }
        let mut wanted = spec.modes();
        choose(&mut wanted);
        // Somebody's hands may have changed what keeps its mode.
        let kept: Vec<Setting> = self.targets()?.iter().map(|row| row.id).collect();
        let kept: Vec<Setting> =
            kept.into_iter().filter(|one| spec.modes().mode(*one) == wanted.mode(*one)).collect();
        let edited = match lab.is_running() {
            true => switch::look(lab, &spec, &kept)?,
            false => Vec::new(),
        };
        let switch = Switch::to(&spec, &wanted).mending(&edited);
        let shown = switch.show(lab)?;
        if self.show {
            match self.output.json() {
                true => super::print_json(&json!({"changed": switch.changed, "difference": shown}))?,
                false => print!("{shown}"),
            }
            return Ok(Answer::Done);
        }
        let done = switch.apply(lab).map_err(|error| self.failed(lab, error))?;
        self.say(lab, &switch, &done, &shown, &spec, &wanted)?;
        Ok(Answer::Done)
    }

    /// The settings meant.
    fn targets(&self) -> Result<Vec<&'static SettingInfo>, Trouble> {
        if self.all {
            return Ok(rows().map(|(_, row)| row).collect());
        }
        let usage = |error| Trouble::new(Answer::Usage, error, "`minilab paths` lists paths and settings");
        let found: Result<Vec<_>, _> = self.target.iter().map(|word| meant(word)).collect();
        Ok(found.map_err(usage)?.into_iter().flatten().collect())
    }

    fn failed(&self, lab: &LabDir, error: switch::SwitchError) -> Trouble {
        let remedy = format!("`{} logs ROLE` says more; `--show` prints what would change", up::myself(lab));
        Trouble { error: error.into(), answer: Answer::Failed, remedy: Some(remedy) }
    }

    fn say(
        &self,
        lab: &LabDir,
        switch: &Switch,
        done: &Done,
        shown: &str,
        spec: &Spec,
        wanted: &Settings,
    ) -> anyhow::Result<()> {
        let changed = &switch.changed;
        let took = done.took.as_secs_f64() * 1000.0;
        let mut notes = notes(&spec.modes(), wanted);
        notes.extend(
            done.late.iter().map(|late| format!("{late} has still to follow: look at it with kubectl")),
        );
        if self.output.json() {
            return super::print_json(&json!({
                "changed": changed, "restarted": done.restarted, "tookMs": took,
                "overwritten": done.overwritten, "notes": notes, "difference": shown,
            }));
        }
        match self.whole {
            true => print!("{shown}"),
            false => print!("{}", abridged(shown)),
        }
        for change in changed {
            eprintln!("{}.{}: {} -> {}", change.path, change.setting, change.from, change.to);
        }
        if switch.is_empty() {
            eprintln!("nothing to change: every one of them is set so already");
            return Ok(());
        }
        done.overwritten.iter().for_each(|lost| eprintln!("overwritten: {lost}"));
        if !done.restarted.is_empty() {
            eprintln!("restarted {}", done.restarted.join(", "));
        }
        eprintln!("took {took:.0} ms");
        notes.iter().for_each(|note| eprintln!("note: {note}"));
        if changed.iter().any(|change| change.to == Mode::Insecure) {
            eprintln!(
                "This is open inside the lab alone: nothing of it can be reached from this machine's network. Attack \
                 it from where an attacker stands: `{} shell wire`, a pod, a node.",
                up::myself(lab)
            );
        }
        Ok(())
    }
}

/// What comes or goes as a whole is printed up to this many lines.
const SHORT: usize = 16;

/// The difference without most of what comes or goes as a whole: the lines that changed are few, and a
/// terminal has 24.
fn abridged(shown: &str) -> String {
    let mut text = String::new();
    let mut whole = false;
    let mut lines = shown.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().copied().unwrap_or_default();
        if line.starts_with("--- ") && next.starts_with("+++ ") {
            whole = line == "--- /dev/null" || next == "+++ /dev/null";
        }
        match length(line).filter(|length| whole && *length > SHORT) {
            Some(length) => {
                lines.by_ref().take(length).for_each(|_| ());
                text += &format!("  ({length} lines; --whole prints them)\n");
            }
            None => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

/// How many lines follow the head of a hunk that has but one side.
fn length(head: &str) -> Option<usize> {
    let spans = head.strip_prefix("@@ -")?.strip_suffix(" @@")?;
    let (old, new) = spans.split_once(" +")?;
    [old, new].iter().filter_map(|span| span.split_once(',')?.1.parse::<usize>().ok()).max()
}

/// What a learner should know of the state that was reached.
fn notes(before: &Settings, now: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    if !kubelets_reachable(now) && kubelets_reachable(before) {
        notes.push(
            "kubelets still serve certificates they signed themselves, so logs, exec and port-forward now fail with \
             x509 errors: harden apiserver-to-kubelet.serving-certificates"
                .to_owned(),
        );
    }
    let approved = [Setting::ToKubeletServing, Setting::ToKubeletCa].iter().all(|one| now.hardened(*one));
    if approved && !now.hardened(Setting::ToKubeletApproval) {
        notes.push(
            "a kubelet that asks for its sibling's address still gets it: harden apiserver-to-kubelet.approval"
                .to_owned(),
        );
    }
    if now.mode(Setting::EgressTunnel) == Mode::Partial {
        notes.push(
            "SSH tunnels are history: the control plane still dials every node (port 22), and the one key in \
             /etc/srv/sshproxy opens them all"
                .to_owned(),
        );
        if !now.hardened(Setting::EgressSshHostKey) {
            notes.push(
                "no node is asked who it is: harden apiserver-egress.ssh-host-key (never upstream's)".into(),
            );
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_comes_as_a_whole_is_named_and_what_changed_is_printed() {
        let long: String = (0..20).map(|number| format!("+line {number}\n")).collect();
        let changed = "--- control:/b\n+++ control:/b\n@@ -1,1 +1,1 @@\n-old\n+new\n";
        let short = "--- b\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n--two\n";
        let head = "--- /dev/null\n+++ node-1:/a\n";
        let shown = format!("{head}@@ -0,0 +1,20 @@\n{long}+role x@control\n{changed}{short}");
        let told = format!("{head}  (20 lines; --whole prints them)\n+role x@control\n{changed}{short}");
        assert_eq!(super::abridged(&shown), told);
    }
}
