//! `minilab paths`: the table of paths and settings, and how this lab has them.

use clap::Args;
use serde::Serialize;

use super::{Answer, Outcome, Output, table};
use crate::lab::paths::{Direction, FlagInfo, Mode, PATHS, PathInfo, Profile, Settings};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Paths {
    /// Show what kubeadm 1.36 ships instead of this lab
    #[arg(long)]
    real: bool,
    #[command(flatten)]
    output: Output,
}

/// A path as `-o json` prints it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PathRow {
    name: &'static str,
    direction: Direction,
    mode: String,
    default: String,
    settings: Vec<SettingRow>,
    protects: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettingRow {
    name: &'static str,
    mode: Mode,
    insecure: &'static str,
    hardened: &'static str,
    flags: &'static [FlagInfo],
}

impl Paths {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.exists() && !self.real {
            eprintln!("lab {} does not exist; this is what kubeadm ships, which `up` starts from", lab.name);
        }
        let settings = match lab.exists() && !self.real {
            true => super::up::read_spec(lab)?.modes(),
            false => Settings::of(Profile::Default),
        };
        let rows: Vec<PathRow> = PATHS.iter().map(|path| row(path, &settings)).collect();
        if self.output.json() {
            super::print_json(&rows)?;
            return Ok(Answer::Done);
        }
        let lines = rows.iter().flat_map(|path| {
            path.settings.iter().map(|setting| {
                let now = if setting.mode == Mode::Insecure { setting.insecure } else { setting.hardened };
                vec![format!("{}.{}", path.name, setting.name), setting.mode.to_string(), now.to_owned()]
            })
        });
        table::print(&["SETTING", "MODE", "WHICH MEANS"], lines)?;
        Ok(Answer::Done)
    }
}

fn row(path: &'static PathInfo, settings: &Settings) -> PathRow {
    let default = Settings::of(Profile::Default);
    PathRow {
        name: path.name,
        direction: path.direction,
        mode: overall(path, settings),
        default: overall(path, &default),
        settings: path
            .settings
            .iter()
            .map(|setting| SettingRow {
                name: setting.name,
                mode: settings.mode(setting.id),
                insecure: setting.insecure,
                hardened: setting.hardened,
                flags: setting.flags,
            })
            .collect(),
        protects: path.protects,
    }
}

/// One word for a path: its settings' common mode, or `mixed`.
fn overall(path: &PathInfo, settings: &Settings) -> String {
    let mut modes = path.settings.iter().map(|setting| settings.mode(setting.id));
    let first = modes.next();
    match first {
        Some(mode) if modes.all(|other| other == mode) => mode.to_string(),
        _ => "mixed".into(),
    }
}
