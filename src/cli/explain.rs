//! `minilab explain PATH[.SETTING]`: what a setting is, open and closed, and how one tells the difference.

use clap::Args;

use super::{Answer, Outcome, Trouble};
use crate::lab::paths::{PATHS, PathInfo, Profile, SettingInfo, Settings};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Explain {
    /// For example apiserver-to-kubelet, or kubelet-access.read-only-port
    #[arg(value_name = "PATH[.SETTING]")]
    what: String,
}

impl Explain {
    pub fn run(self, lab: &LabDir) -> Outcome {
        let (path, setting) = match self.what.split_once('.') {
            Some((path, setting)) => (path, Some(setting)),
            None => (self.what.as_str(), None),
        };
        let meant = |row: &&SettingInfo| setting.is_none_or(|setting| setting == row.name);
        let found = PATHS.iter().find(|row| row.name == path && row.settings.iter().any(|row| meant(&row)));
        let Some(path) = found else {
            let what = format!("there is no path or setting {:?}", self.what);
            return Err(Trouble::new(Answer::Usage, what, "`minilab paths` lists them"));
        };
        let settings = match lab.exists() {
            true => super::up::read_spec(lab)?.modes(),
            false => Settings::of(Profile::Default),
        };
        println!("{}: {}", path.name, path.protects);
        path.settings.iter().filter(meant).for_each(|row| print(path, row, &settings));
        Ok(Answer::Done)
    }
}

fn print(path: &PathInfo, row: &SettingInfo, settings: &Settings) {
    let stands: Vec<String> = row.stands.iter().map(ToString::to_string).collect();
    println!(
        "\n{}.{} is {} here; kubeadm: {}, bare command lines: {}",
        path.name,
        row.name,
        settings.mode(row.id),
        row.real,
        row.bare
    );
    println!("  insecure  {}", row.insecure);
    println!("  hardened  {}", row.hardened);
    println!("  attack    {}, {}", row.attack, stands.join(" or "));
    if !row.compromised.is_empty() {
        println!("  open      {}", row.compromised);
    }
    println!("  closed    {}", row.defeated);
    for flag in row.flags {
        println!("  set in    {} {}: {} | {}", flag.role, flag.flag, flag.insecure, flag.hardened);
    }
}
