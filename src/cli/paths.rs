//! `minilab paths`: the table of paths and settings under the documentation's headings, and how this lab
//! really has them.

use clap::Args;
use serde::Serialize;

use super::{Answer, Outcome, Output, table};
use crate::lab::paths::{
    Direction, FlagInfo, Mode, PATHS, PathInfo, Profile, Proof, Setting, SettingInfo, Settings, between,
    proof, real_world, rows,
};
use crate::lab::state::LabDir;
use crate::lab::switch;

#[derive(Args)]
pub struct Paths {
    /// Add what kubeadm, bare command lines, k0s and k3s do
    #[arg(long)]
    real: bool,
    #[command(flatten)]
    output: Output,
}

/// A setting as it was found in the lab.
struct Found {
    /// None where it is in no mode.
    mode: Option<Mode>,
    edited: Vec<String>,
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
    proof: Proof,
    lab: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SettingRow {
    name: &'static str,
    /// `insecure`, `partial`, `hardened`, or `custom` where somebody's edit decides.
    mode: String,
    /// Files and objects that are not as the last switch left them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    edited: Vec<String>,
    /// What keeps an attacker out now, or what lets one in.
    protects: &'static str,
    insecure: &'static str,
    hardened: &'static str,
    real: Vec<Ships>,
    flags: &'static [FlagInfo],
}

/// What somebody's cluster has for a setting.
#[derive(Serialize)]
struct Ships {
    who: &'static str,
    mode: Mode,
}

impl Paths {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.exists() {
            eprintln!("lab {} does not exist; this is what kubeadm ships, which `up` starts from", lab.name);
        }
        let (settings, live) = match lab.exists() {
            true => {
                let spec = super::up::read_spec(lab)?;
                let all: Vec<Setting> = rows().map(|(_, row)| row.id).collect();
                (spec.modes(), switch::look(lab, &spec, &all)?)
            }
            false => (Settings::of(Profile::Default), Vec::new()),
        };
        let found = |setting: Setting| match live.iter().find(|live| live.setting == setting) {
            Some(live) => Found { mode: live.mode, edited: live.edited.clone() },
            None => Found { mode: Some(settings.mode(setting)), edited: Vec::new() },
        };
        // What is proven goes by what was found.
        let mut now = settings.clone();
        for live in &live {
            if let Some(mode) = live.mode {
                now.put(live.setting, mode);
            }
        }
        let rows: Vec<PathRow> = PATHS.iter().map(|path| row(path, &now, &found, &lab.name)).collect();
        match self.output.json() {
            true => super::print_json(&rows)?,
            false => self.print(&rows)?,
        }
        Ok(Answer::Done)
    }

    /// As the documentation heads its page: Node to Control Plane, Control Plane to Node.
    fn print(&self, rows: &[PathRow]) -> anyhow::Result<()> {
        let headings = [
            (Direction::NodeToControlPlane, "Node to Control Plane"),
            (Direction::WithinControlPlane, "Within the Control Plane"),
            (Direction::ControlPlaneToNode, "Control Plane to Node"),
        ];
        for (at, (direction, heading)) in headings.into_iter().enumerate() {
            println!("{}{heading}", if at > 0 { "\n" } else { "" });
            let paths = rows.iter().filter(|path| path.direction == direction);
            let lines =
                paths.flat_map(|path| path.settings.iter().map(move |setting| self.line(path, setting)));
            let heads: &[&str] = match self.real {
                true => &["SETTING", "MODE", "KUBEADM", "BARE FLAGS", "K0S", "K3S", "NOW"],
                false => &["SETTING", "MODE", "NOW"],
            };
            table::print(heads, lines)?;
        }
        println!("\nWho is proven to whom, and what somebody on wire has of it (`explain PATH` says why)");
        let lines = rows.iter().map(|path| {
            let Proof { server_proven, client_proven, listener_reads, middle_changes, .. } = &path.proof;
            let words = [server_proven, client_proven, listener_reads, middle_changes].map(|text| word(text));
            std::iter::once(path.name.to_owned()).chain(words).collect()
        });
        table::print(
            &["PATH", "SERVER PROVEN", "CLIENT PROVEN", "A LISTENER READS", "THE MIDDLE CHANGES"],
            lines,
        )?;
        println!();
        for (path, setting) in rows.iter().flat_map(|path| path.settings.iter().map(move |one| (path, one))) {
            for place in &setting.edited {
                println!("{}: {}.{} by an edit of {place}", setting.mode, path.name, setting.name);
            }
        }
        Ok(())
    }

    fn line(&self, path: &PathRow, setting: &SettingRow) -> Vec<String> {
        let mut cells = vec![format!("{}.{}", path.name, setting.name), setting.mode.clone()];
        if self.real {
            cells.extend(setting.real.iter().map(|ships| ships.mode.to_string()));
        }
        cells.push(setting.protects.to_owned());
        cells
    }
}

fn row(path: &'static PathInfo, settings: &Settings, found: &dyn Fn(Setting) -> Found, lab: &str) -> PathRow {
    let default = Settings::of(Profile::Default);
    let rows: Vec<SettingRow> = path
        .settings
        .iter()
        .map(|setting| setting_row(setting, settings.mode(setting.id), found(setting.id)))
        .collect();
    PathRow {
        name: path.name,
        direction: path.direction,
        mode: overall(rows.iter().map(|row| row.mode.as_str())),
        default: overall(
            path.settings.iter().map(|row| default.mode(row.id).to_string()).collect::<Vec<_>>().iter(),
        ),
        settings: rows,
        protects: path.protects,
        proof: proof(path.name, settings),
        lab: lab.to_owned(),
    }
}

fn setting_row(setting: &'static SettingInfo, switched: Mode, found: Found) -> SettingRow {
    let mode = found.mode.unwrap_or(switched);
    let contained = setting.id == Setting::ProxyTransport && mode == Mode::Hardened;
    SettingRow {
        name: setting.name,
        mode: match (found.mode, contained) {
            (None, _) => "custom".into(),
            // Nothing makes this safe; the tunnel only keeps it off the wire.
            (_, true) => "contained".into(),
            (_, false) => mode.to_string(),
        },
        edited: found.edited,
        protects: match (found.mode, mode) {
            (None, _) => "changed by hand into neither; `explain` says what to look at",
            (_, Mode::Insecure) => setting.insecure,
            (_, Mode::Partial) => between(setting.id).unwrap_or(setting.hardened),
            (_, Mode::Hardened) => setting.hardened,
        },
        insecure: setting.insecure,
        hardened: setting.hardened,
        real: real_world(setting).map(|(who, mode)| Ships { who, mode }).into(),
        flags: setting.flags,
    }
}

/// The short of it.
fn word(text: &str) -> String {
    text.split_once(": ").map_or(text, |(word, _)| word).to_owned()
}

/// One word for a path: its settings' common mode, `custom` where an edit decides one, or `mixed`.
fn overall(modes: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut common: Option<String> = None;
    for mode in modes {
        match &common {
            _ if mode.as_ref() == "custom" => return "custom".into(),
            Some(first) if first != mode.as_ref() => common = Some("mixed".into()),
            Some(_) => {}
            None => common = Some(mode.as_ref().to_owned()),
        }
    }
    common.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_says_whether_a_paths_settings_agree() {
        assert_eq!(overall(["hardened", "hardened"]), "hardened");
        assert_eq!(overall(["hardened", "insecure", "insecure"]), "mixed");
        assert_eq!(overall(["hardened", "custom"]), "custom");
    }
}
