//! `minilab explain PATH[.SETTING]`: what a setting is, open and closed, and how one tells the difference.
//! `minilab explain "ERROR TEXT"`: which setting a pasted error is about, its cause and the next command.

use clap::Args;

use super::{Answer, Outcome, Trouble};
use crate::lab::paths::{KnownError, PATHS, PathInfo, Profile, SettingInfo, Settings, known_errors};
use crate::lab::state::LabDir;

#[derive(Args)]
pub struct Explain {
    /// For example apiserver-to-kubelet, kubelet-access.read-only-port, or an error text in quotes
    #[arg(value_name = "PATH[.SETTING]|ERROR TEXT")]
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
        let Some(path) = found else { return self.error(lab) };
        let settings = match lab.exists() {
            true => super::up::read_spec(lab)?.modes(),
            false => Settings::of(Profile::Default),
        };
        println!("{}: {}", path.name, path.protects);
        path.settings.iter().filter(meant).for_each(|row| print(path, row, &settings));
        Ok(Answer::Done)
    }
}

impl Explain {
    /// A word that is no path may be an error somebody read.
    fn error(&self, lab: &LabDir) -> Outcome {
        let known = known_errors(&self.what);
        if known.is_empty() {
            let what = match self.what.contains(' ') {
                true => format!("no error this lab knows contains {:?}", self.what),
                false => format!("there is no path or setting {:?}", self.what),
            };
            let remedy = "`minilab paths` lists the paths; paste an error as it was printed, in quotes";
            return Err(Trouble::new(Answer::Usage, what, remedy));
        }
        let me = super::up::myself(lab);
        known.iter().enumerate().for_each(|(at, error)| print_error(error, at, &me));
        Ok(Answer::Done)
    }
}

fn print_error(error: &KnownError, at: usize, me: &str) {
    if at > 0 {
        println!();
    }
    println!("{}: {}", error.about, error.what);
    println!("  cause  {}", error.cause);
    println!("  try    {}", error.next.replace("minilab ", &format!("{me} ")));
    println!("  more   {me} explain {}", error.about);
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
