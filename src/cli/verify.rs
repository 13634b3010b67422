//! `minilab verify`: every attack against the settings as they are; with `--all-modes` each setting on its
//! stage, open and then shut alone, in an otherwise hardened lab that is put back afterwards.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::attack::run_all;
use super::{Answer, Outcome, Output, Trouble, report, up};
use crate::attack::{Report, Verdict, Wishes, attacked, stage};
use crate::lab::paths::{Mode, Profile, Setting, SettingInfo, Settings, name, rows};
use crate::lab::state::LabDir;
use crate::lab::switch::{Switch, as_found, borrow, give_back, mend};

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
        // What cannot be written in the end had better not be begun.
        let file = self.report.as_ref().map(|path| created(path).map(|file| (path, file))).transpose()?;
        mend(lab, &up::read_spec(lab)?)?;
        let reports = match self.all_modes {
            true => {
                // Whatever happens, even to this process, the lab is given back as it was.
                borrow(lab, &up::read_spec(lab)?)?;
                let reports = self.every_mode(lab);
                give_back(lab, &up::read_spec(lab)?)?;
                reports?
            }
            false => {
                let targets: Vec<Setting> = attacked().collect();
                let found = as_found(lab, &up::read_spec(lab)?)?;
                run_all(lab, &found, &targets, &Wishes::default(), self.output)?
            }
        };
        if let Some((path, mut file)) = file {
            let page = report::page(path, &lab.name, &reports).context("it was looked at above")?;
            file.write_all(page.as_bytes()).with_context(|| format!("write {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
        self.say(&reports)
    }

    /// Where only their own settings differ, attacks share the lab that is shut: each is tried there, and then
    /// again with its own setting alone open. So whatever comes out differently is that setting's doing.
    fn every_mode(&self, lab: &LabDir) -> Result<Vec<Report>, Trouble> {
        let mut rounds: Vec<(Settings, Vec<Setting>)> = Vec::new();
        for setting in attacked() {
            let shut = staged(setting, Mode::Hardened);
            match rounds.iter_mut().find(|(there, _)| same(there, &shut)) {
                Some((_, settings)) => settings.push(setting),
                None => rounds.push((shut, vec![setting])),
            }
        }
        // What needs the tunnel comes first, then what needs none: it is taken down once and not put up again.
        rounds.sort_by_key(|(shut, settings)| (road(shut), settings.contains(&Setting::EgressTunnel)));
        let mut reports = Vec::new();
        for (shut, mut settings) in rounds {
            settings.sort_by_key(|setting| road(&staged(*setting, Mode::Insecure)));
            switch_to(lab, &shut)?;
            reports.extend(run_all(lab, &shut, &settings, &Wishes::default(), self.output)?);
            for setting in settings {
                let open = staged(setting, Mode::Insecure);
                switch_to(lab, &open)?;
                reports.extend(run_all(lab, &open, &[setting], &Wishes::default(), self.output)?);
            }
        }
        let place = |report: &Report| rows().position(|(_, row)| name(row.id) == report.path);
        reports.sort_by_key(|report| (place(report), report.mode != Mode::Insecure.to_string()));
        Ok(reports)
    }

    fn say(&self, reports: &[Report]) -> Outcome {
        let as_expected = reports.iter().all(Report::as_expected);
        let none: Vec<_> = rows().filter(|(_, row)| !attacked().any(|setting| setting == row.id)).collect();
        match self.output.json() {
            true => {
                let none: Vec<_> =
                    none.iter().map(|(_, row)| json!({"path": name(row.id), "why": without(row)})).collect();
                super::print_json(&json!({
                    "results": reports, "asExpected": as_expected, "withoutAttack": none, "notCovered": NOT_COVERED,
                }))?;
            }
            false => {
                none.iter().for_each(|(_, row)| println!("{}: {}", name(row.id), without(row)));
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

/// An empty file for a report, which holds what its reader should not pass on: parts of tokens, requests.
fn created(path: &Path) -> anyhow::Result<File> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.with_context(|| format!("write {}", path.display()))
}

/// Why a setting is not attacked.
fn without(row: &SettingInfo) -> String {
    format!("no attack of its own: {}", row.attack)
}

/// A hardened lab with the stage of an attack, its own setting open or shut.
fn staged(setting: Setting, mode: Mode) -> Settings {
    let mut settings = Settings::of(Profile::Hardened);
    stage(setting).iter().for_each(|(other, mode)| settings.put(*other, *mode));
    settings.set(setting, mode);
    settings
}

/// The order of roads to the nodes: tunnels, none, historical ones.
fn road(settings: &Settings) -> u8 {
    match settings.mode(Setting::EgressTunnel) {
        Mode::Hardened => 0,
        Mode::Insecure => 1,
        Mode::Partial => 2,
    }
}

fn same(one: &Settings, other: &Settings) -> bool {
    rows().all(|(_, row)| one.mode(row.id) == other.mode(row.id))
}

fn switch_to(lab: &LabDir, settings: &Settings) -> Result<(), Trouble> {
    let spec = up::read_spec(lab)?;
    // A tunnel has an order of its own, everything else can change at once.
    let tunnel = |of: &Settings| of.mode(Setting::EgressTunnel);
    let switch = match tunnel(&spec.modes()) == tunnel(settings) {
        true => Switch::straight(&spec, settings),
        false => Switch::to(&spec, settings),
    };
    switch.apply(lab)?;
    Ok(())
}
