//! `minilab attack PATH[.SETTING]`: the real attack, and what was seen of it.

use clap::Args;

use super::{Answer, Outcome, Output, Trouble, up};
use crate::attack::{Report, Verdict, Wishes, attack, attacked, stand};
use crate::course;
use crate::lab::paths::{Setting, Settings, meant, name};
use crate::lab::state::LabDir;
use crate::lab::switch;

#[derive(Args)]
pub struct Attack {
    /// A path (every attack on it) or one of its settings
    #[arg(value_name = "PATH[.SETTING]")]
    target: String,
    /// Fail, with exit code 3, unless every verdict is this one
    #[arg(long, value_enum, value_name = "VERDICT")]
    expect: Option<Verdict>,
    /// What forged answers say
    #[arg(long, value_name = "TEXT")]
    say: Option<String>,
    #[command(flatten)]
    output: Output,
    /// Stand there while this runs (apiserver-to-kubelet.ca: -- kubectl logs POD)
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Attack {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let usage = |error| Trouble::new(Answer::Usage, error, "`minilab paths` lists paths and settings");
        let rows = meant(&self.target).map_err(usage)?;
        let targets: Vec<Setting> =
            attacked().filter(|setting| rows.iter().any(|row| row.id == *setting)).collect();
        if targets.is_empty() {
            let why: Vec<String> = rows.iter().map(|row| format!("{}: {}", row.name, row.attack)).collect();
            let what = format!("{} has no attack that runs alone ({})", self.target, why.join("; "));
            return Err(Trouble::new(Answer::Usage, what, "`minilab verify` lists those that do"));
        }
        let wishes = Wishes { say: self.say.clone() };
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        // Two attacks at once would judge each other.
        let _lock = lab.lock()?;
        // Whoever hardened by hand is attacked as hardened.
        let settings = switch::as_found(lab, &up::read_spec(lab)?)?;
        let reports = match self.command.is_empty() {
            true => targets
                .iter()
                .map(|target| Ok(self.told(lab, run_one(lab, &settings, *target, &wishes)?)))
                .collect::<Result<_, Trouble>>()?,
            false => vec![self.during(lab, &settings, &targets, &wishes)?],
        };
        if self.output.json() {
            match &reports[..] {
                [one] => super::print_json(one)?,
                all => super::print_json(&all)?,
            }
        }
        let holds = |report: &Report| match self.expect {
            Some(verdict) => report.verdict == verdict,
            None => report.verdict != Verdict::Inconclusive,
        };
        Ok(if reports.iter().all(holds) { Answer::Done } else { Answer::NotSo })
    }
}

impl Attack {
    /// Notes what came of an attack, then says it: who reads only the first line of it has attacked all the same.
    fn told(&self, lab: &LabDir, report: Report) -> Report {
        course::note(lab, &report.path, report.verdict, self.say.is_some());
        if !self.output.json() {
            print(&report);
        }
        report
    }

    /// The learner's own command, with the attacker in its way.
    fn during(
        &self,
        lab: &LabDir,
        settings: &Settings,
        targets: &[Setting],
        wishes: &Wishes,
    ) -> Result<Report, Trouble> {
        let refused =
            |error| Trouble { error: anyhow::Error::from(error), answer: Answer::Usage, remedy: None };
        // Of a whole path, the attack that can wait.
        let target = targets.iter().find(|one| **one == Setting::ToKubeletCa).unwrap_or(&targets[0]);
        let standing = stand(lab, *target, wishes).map_err(refused)?;
        let mut command = std::process::Command::new(&self.command[0]);
        command.args(&self.command[1..]).env("KUBECONFIG", lab.kubeconfig());
        let ended = command.status();
        let report = standing.leave(settings);
        if let Err(error) = ended {
            return Err(anyhow::Error::from(error).context(format!("run {}", self.command[0])).into());
        }
        Ok(self.told(lab, report))
    }
}

fn run_one(lab: &LabDir, settings: &Settings, target: Setting, wishes: &Wishes) -> Result<Report, Trouble> {
    attack(lab, settings, target, wishes).map_err(|error| {
        let error = anyhow::Error::from(error).context(format!("attack {}", name(target)));
        Trouble { error, answer: Answer::NotSo, remedy: None }
    })
}

/// Runs attacks one after the other and says each verdict as it comes. The caller holds the lab's lock.
pub fn run_all(
    lab: &LabDir,
    settings: &Settings,
    targets: &[Setting],
    wishes: &Wishes,
    output: Output,
) -> Result<Vec<Report>, Trouble> {
    let mut reports = Vec::new();
    for target in targets {
        let report = run_one(lab, settings, *target, wishes)?;
        if !output.json() {
            print(&report);
        }
        reports.push(report);
    }
    Ok(reports)
}

fn print(report: &Report) {
    println!("{} ({}): {}", report.path, report.mode, report.verdict.to_string().to_uppercase());
    println!("  {}", report.observed);
    for evidence in &report.evidence {
        println!("  {:<7} {}", evidence.kind, evidence.what);
        let sample = evidence.sample.lines().take(4);
        sample.for_each(|line| println!("          {}", line.chars().take(160).collect::<String>()));
    }
    if !report.as_expected() {
        println!("  expected {}, because of {}", report.expected, report.decides);
    } else if report.decides != report.path {
        println!("  as it must be while {} is so", report.decides);
    }
}
