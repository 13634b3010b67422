//! `minilab kubeconfig`, and what `up`, `down` and `delete` do to the user's own kubeconfig.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Answer, Outcome, Output, Trouble};
use crate::lab::kubeconfig::{UserFiles, outside};
use crate::lab::material::Material;
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;

/// Print the lab's kubeconfig, or merge it into yours
#[derive(Args)]
pub struct Kubeconfig {
    /// Add the context to $KUBECONFIG or ~/.kube/config and switch to it
    #[arg(long)]
    merge: bool,
    /// With --merge: the one file to change
    #[arg(long, requires = "merge", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

impl Kubeconfig {
    pub fn run(self, lab: &LabDir) -> Outcome {
        if !lab.exists() {
            return Err(Trouble::not_running(lab));
        }
        if !self.merge {
            let text = std::fs::read_to_string(lab.kubeconfig())?;
            match self.output.json() {
                true => super::print_json(&serde_yaml_ng::from_str::<serde_json::Value>(&text)?)?,
                false => print!("{text}"),
            }
            return Ok(Answer::Done);
        }
        let spec = super::up::read_spec(lab)?;
        let merged = merge(lab, &spec, &Material::of(lab)?, self.kubeconfig.as_deref())?;
        match self.output.json() {
            true => super::print_json(&json!({"context": merged.context, "kubeconfig": merged.file,
                "previous": merged.previous}))?,
            false => eprintln!("{}", merged.line()),
        }
        Ok(Answer::Done)
    }
}

/// What was done to the user's kubeconfig; kept in the lab, so that it can be undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Merged {
    pub context: String,
    /// The file that has the context.
    pub file: PathBuf,
    /// The context that was current.
    pub previous: Option<String>,
    /// `--kubeconfig`, when it was given.
    asked: Option<PathBuf>,
    /// There was no such file before.
    made: bool,
}

impl Merged {
    /// The line that ends `up`.
    pub fn line(&self) -> String {
        match &self.previous {
            Some(previous) => format!("Set kubectl context to \"{}\" (was \"{previous}\")", self.context),
            None => format!("Set kubectl context to \"{}\"", self.context),
        }
    }
}

/// The name of a lab's context, cluster and user.
pub fn context(lab: &LabDir) -> String {
    format!("minilab-{}", lab.name)
}

/// Writes the lab's own kubeconfig, which nothing else shares.
pub fn write_own(lab: &LabDir, port: u16, material: &Material) -> anyhow::Result<()> {
    let context = context(lab);
    let entry = outside(&context, port, material)?;
    lab.write(&lab.kubeconfig(), 0o600, entry.to_yaml().as_bytes())?;
    Ok(())
}

/// Puts the lab's context into the user's kubeconfig and makes it current.
pub fn merge(lab: &LabDir, spec: &Spec, material: &Material, asked: Option<&Path>) -> anyhow::Result<Merged> {
    let context = context(lab);
    let before = remembered(lab);
    let asked = asked.map(Path::to_owned).or_else(|| before.as_ref()?.asked.clone());
    let files = UserFiles::find(&lab.owner, asked.as_deref())?;
    let there = files.existing();
    let (file, previous) = files.merge(&outside(&context, spec.port, material)?)?;
    // While our own context is current, the one before it is still to be given back.
    let made =
        !there.contains(&file) || before.as_ref().is_some_and(|before| before.made && before.file == file);
    let previous = previous.or_else(|| before?.previous);
    let merged = Merged { context, file, previous, asked, made };
    lab.write(&record(lab), 0o600, &serde_json::to_vec(&merged)?)?;
    Ok(merged)
}

/// Gives the context back that was current before `up`, when ours still is; says what it is now.
pub fn give_back(lab: &LabDir) -> anyhow::Result<Option<String>> {
    let Some(merged) = remembered(lab) else { return Ok(None) };
    let files = UserFiles::find(&lab.owner, merged.asked.as_deref())?;
    let given = files.give_back(&merged.context, merged.previous.as_deref())?;
    // Where the environment names other files by now, the file that was changed still counts.
    let there = UserFiles::find(&lab.owner, Some(&merged.file))?;
    Ok(there.give_back(&merged.context, merged.previous.as_deref())?.or(given))
}

/// Takes the lab's context out of the user's kubeconfig.
pub fn remove(lab: &LabDir) -> anyhow::Result<bool> {
    let context = context(lab);
    let Some(merged) = remembered(lab) else { return Ok(false) };
    let mut removed = UserFiles::find(&lab.owner, merged.asked.as_deref())?.remove(&context)?;
    removed |= UserFiles::find(&lab.owner, Some(&merged.file))?.remove(&context)?;
    if merged.made {
        crate::lab::kubeconfig::remove_if_empty(&merged.file)?;
    }
    Ok(removed)
}

fn record(lab: &LabDir) -> PathBuf {
    lab.state.join("context.json")
}

fn remembered(lab: &LabDir) -> Option<Merged> {
    serde_json::from_slice(&std::fs::read(record(lab)).ok()?).ok()
}
