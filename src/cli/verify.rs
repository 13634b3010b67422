//! `minilab verify`: every attack against the settings as they are; with `--all-modes` each setting on its
//! stage, open and then shut alone, in an otherwise hardened lab that is put back afterwards.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::attack::run_all;
use super::{Answer, Outcome, Output, Trouble, report, up};
use crate::attack::{Report, Verdict, Wishes, attacked, stage};
use crate::lab::paths::{Mode, Profile, Setting, Settings, rows};
use crate::lab::state::LabDir;
use crate::lab::switch::Switch;

/// What no attack here looks at.
const NOT_COVERED: &str = "not covered: traffic between nodes and between pods, root on a node, who approves \
                           certificate requests, the machine's metadata";

#[derive(Args)]
pub struct Verify {
    /// Show each setting compromised while insecure and defeated when it alone is hardened, then restore all
    #[arg(long)]
    all_modes: bool,
    /// Write a page with every verdict and its evidence: FILE.html, FILE.md, or FILE.xml for JUnit
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Verify {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if let Some(file) = &self.report
            && report::page(file, &lab.name, &[]).is_none()
        {
            let what = format!("{} is no report this can write", file.display());
            return Err(Trouble::new(Answer::Usage, what, "name it FILE.html, FILE.md or FILE.xml"));
        }
        if !lab.is_running() {
            return Err(Trouble::not_running(lab));
        }
        let _lock = lab.lock()?;
        let settings = up::read_spec(lab)?.modes();
        let reports = match self.all_modes {
            true => {
                let reports = self.every_mode(lab, &settings);
                // Whatever happened, the lab is given back as it was.
                switch_to(lab, &settings)?;
                reports?
            }
            false => {
                let targets: Vec<Setting> = attacked().collect();
                run_all(lab, &settings, &targets, &Wishes::default(), self.output)?
            }
        };
        if let Some(file) = &self.report {
            let page = report::page(file, &lab.name, &reports).context("it was looked at above")?;
            std::fs::write(file, page).with_context(|| format!("write {}", file.display()))?;
        }
        self.say(&reports)
    }

    fn every_mode(&self, lab: &LabDir, now: &Settings) -> Result<Vec<Report>, Trouble> {
        let mut base = Settings::of(Profile::Hardened);
        for (_, row) in rows().filter(|(_, row)| !row.planned) {
            base.put(row.id, now.mode(row.id));
        }
        let mut reports = Vec::new();
        for setting in attacked() {
            let mut settings = base.clone();
            stage(setting).iter().for_each(|(other, mode)| settings.put(*other, *mode));
            for mode in [Mode::Insecure, Mode::Hardened] {
                settings.put(setting, mode);
                switch_to(lab, &settings)?;
                reports.extend(run_all(lab, &settings, &[setting], &Wishes::default(), self.output)?);
            }
        }
        Ok(reports)
    }

    fn say(&self, reports: &[Report]) -> Outcome {
        let as_expected = reports.iter().all(Report::as_expected);
        match self.output.json() {
            true => super::print_json(&json!({"results": reports, "asExpected": as_expected}))?,
            false => {
                let count = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
                println!(
                    "{} compromised, {} defeated, {} inconclusive; {}",
                    count(Verdict::Compromised),
                    count(Verdict::Defeated),
                    count(Verdict::Inconclusive),
                    if as_expected { "all as the settings say" } else { "not all as the settings say" },
                );
                println!("{NOT_COVERED}");
            }
        }
        Ok(if as_expected { Answer::Done } else { Answer::NotSo })
    }
}

fn switch_to(lab: &LabDir, settings: &Settings) -> Result<(), Trouble> {
    let spec = up::read_spec(lab)?;
    Switch::to(&spec, settings).apply(lab)?;
    Ok(())
}
