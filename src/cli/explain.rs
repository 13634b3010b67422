//! `minilab explain PATH[.SETTING]`: what a setting is, open and closed, and how one tells the difference.
//! `minilab explain "ERROR TEXT"`: which setting a pasted error is about, its cause and the next command.

use std::io::Read;

use clap::Args;

use serde_json::{Value, json};

use super::{Answer, Outcome, Output, Trouble};
use crate::lab::paths::{
    At, KnownError, Mode, PATHS, PathInfo, Profile, SSH_TUNNELS, Setting, SettingInfo, Settings,
    known_errors, lesson, proof, section,
};
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;
use crate::lab::switch::Switch;

/// So much of what is pasted is read.
const LONGEST: u64 = 64 * 1024;

#[derive(Args)]
pub struct Explain {
    /// For example apiserver-to-kubelet, kubelet-access.read-only-port, an error text in quotes, or - to paste one
    #[arg(value_name = "PATH[.SETTING]|ERROR TEXT")]
    what: String,
    /// Print only the read-only lines that tell the modes apart, for pasting on a cluster of your own
    #[arg(long)]
    probe: bool,
    #[command(flatten)]
    output: Output,
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
        let rows: Vec<&SettingInfo> = path.settings.iter().filter(meant).collect();
        match (self.probe, self.output.json()) {
            (_, true) => super::print_json(&rows.iter().map(|row| in_json(path, row)).collect::<Vec<_>>())?,
            (true, false) => rows.iter().for_each(|row| print_probe(path, row)),
            (false, false) => {
                let spec = match lab.exists() {
                    true => super::up::read_spec(lab)?,
                    false => Spec::new(&lab.name, 1, Profile::Default, 0),
                };
                println!("{}: {}", path.name, path.protects);
                print_proof(path, &spec.modes());
                for row in rows {
                    print(path, row, &spec.modes());
                    print_difference(lab, &spec, row)?;
                }
            }
        }
        Ok(Answer::Done)
    }
}

impl Explain {
    /// A word that is no path may be an error somebody read.
    fn error(&self, lab: &LabDir) -> Outcome {
        let text = match self.what.as_str() {
            "-" => std::io::read_to_string(std::io::stdin().take(LONGEST)).unwrap_or_default(),
            text => text.to_owned(),
        };
        let known = known_errors(&text);
        if known.is_empty() {
            let short: String = text.trim().chars().take(200).collect();
            let what = match text.contains(' ') || text.len() > short.len() {
                true => format!("no error this lab knows contains {short:?}"),
                false => format!("there is no path or setting {short:?}"),
            };
            let remedy = "`minilab paths` lists the paths; paste an error as it was printed, in quotes";
            return Err(Trouble::new(Answer::Usage, what, remedy));
        }
        let me = super::up::myself(lab);
        known.iter().enumerate().for_each(|(at, error)| print_error(error, at, &text, &me));
        Ok(Answer::Done)
    }
}

fn print_error(error: &KnownError, at: usize, text: &str, me: &str) {
    if at > 0 {
        println!();
    }
    println!("{}: {}", error.about, error.what);
    println!("  cause  {}", error.cause);
    println!("  try    {}", error.next_for(text).replace("minilab ", &format!("{me} ")));
    println!("  more   {me} explain {}", error.about);
}

/// What protects a path as it is set, and where the documentation speaks of it.
fn print_proof(path: &PathInfo, settings: &Settings) {
    let proof = proof(path.name, settings);
    println!("  page      Communication between Nodes and the Control Plane: {}", section(path.name));
    println!("  server proven       {}", proof.server_proven);
    println!("  client proven       {}", proof.client_proven);
    println!("  a listener reads    {}", proof.listener_reads);
    println!("  the middle changes  {}", proof.middle_changes);
    println!("  because             {}", proof.why);
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
    if row.id == Setting::EgressTunnel {
        println!("  partial   {SSH_TUNNELS}; `harden apiserver-egress --with ssh`");
    }
    println!("  hardened  {}", row.hardened);
    println!("  attack    {}, {}", row.attack, stands.join(" or "));
    if !row.compromised.is_empty() {
        println!("  open      {}", row.compromised);
    }
    println!("  closed    {}", row.defeated);
    for flag in row.flags {
        println!("  set in    {} {}: {} | {}", flag.role, flag.flag, flag.insecure, flag.hardened);
    }
    let Some(lesson) = lesson(row.id) else { return };
    println!("  who dials {}", lesson.dials);
    println!("  to gain   {}", lesson.gains);
    if !lesson.cis.is_empty() {
        println!("  CIS       {}", lesson.cis);
    }
    println!("  probe     {}", lesson.probe.line);
    println!(
        "            insecure: {} | hardened: {}",
        answers(lesson.probe.insecure),
        answers(lesson.probe.hardened)
    );
}

/// What switching it the other way changes, in the lab as it is.
fn print_difference(lab: &LabDir, spec: &Spec, row: &SettingInfo) -> anyhow::Result<()> {
    if !lab.exists() {
        return Ok(());
    }
    let (verb, mode) = match spec.modes().hardened(row.id) {
        true => ("soften", Mode::Insecure),
        false => ("harden", Mode::Hardened),
    };
    let mut wanted = spec.modes();
    wanted.set(row.id, mode);
    println!("  {verb} would change");
    Switch::to(spec, &wanted).show(lab)?.lines().for_each(|line| println!("    {line}"));
    Ok(())
}

fn place(at: At) -> &'static str {
    match at {
        At::Control => "control",
        At::Node => "node",
        At::Kubectl => "kubectl",
    }
}

fn answers(texts: &[&str]) -> String {
    texts.join(" or ")
}

fn print_probe(path: &PathInfo, row: &SettingInfo) {
    let Some(lesson) = lesson(row.id) else { return };
    println!("# {}.{}, on: {}", path.name, row.name, place(lesson.probe.at));
    println!("# insecure: {} | hardened: {}", answers(lesson.probe.insecure), answers(lesson.probe.hardened));
    println!("{}", lesson.probe.line);
}

fn in_json(path: &PathInfo, row: &SettingInfo) -> Value {
    let lesson = lesson(row.id);
    let probe = lesson.map(|lesson| &lesson.probe);
    json!({
        "path": path.name, "setting": row.name, "protects": path.protects,
        "insecure": row.insecure, "hardened": row.hardened, "attack": row.attack,
        "dials": lesson.map(|lesson| lesson.dials), "gains": lesson.map(|lesson| lesson.gains),
        "cis": lesson.map(|lesson| lesson.cis), "flags": row.flags,
        "probe": probe.map(|probe| json!({
            "at": place(probe.at), "line": probe.line, "insecure": probe.insecure, "hardened": probe.hardened,
        })),
    })
}
