//! How a lab's settings really are: as the switch left them, or as somebody's editor or kubectl did.
//!
//! For each setting, the lines and objects that tell its mode from the other are looked for on disk and in the
//! API. What is elsewhere in the same files is nobody's mode.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use serde_json::Value;

use super::{SwitchError, lines};
use crate::client;
use crate::lab::files::{Tree, render};
use crate::lab::material::Material;
use crate::lab::objects;
use crate::lab::paths::{Mode, Setting, rows};
use crate::lab::plan::{BOOTSTRAP, Difference, FileChange, ObjectChange, Plan, plan};
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;

/// How long the API server may take to say what is there.
const PATIENCE: Duration = Duration::from_secs(3);

/// A setting as it is.
#[derive(Debug)]
pub struct Live {
    pub setting: Setting,
    /// Where it is not as it was last switched.
    pub custom: Vec<String>,
}

/// Looks at every setting of a lab; at the API only where it runs.
pub fn look(lab: &LabDir, spec: &Spec) -> Result<Vec<Live>, SwitchError> {
    let material = Material::of(lab)?;
    let (now, settings) = (plan(spec), spec.modes());
    let mut all = Vec::new();
    let mut changes: Vec<(usize, ObjectChange)> = Vec::new();
    for (at, (_, row)) in rows().enumerate() {
        let mode = settings.mode(row.id);
        let difference = Difference::between(&now, &opposite(spec, row.id, mode));
        let mut custom = Vec::new();
        for change in difference.files.iter().filter(|change| is_read(change)) {
            if !as_planned(lab, change, &material)? {
                custom.push(format!("{}:{}", change.host, change.path().display()));
            }
        }
        changes.extend(difference.objects.into_iter().map(|change| (at, change)));
        all.push(Live { setting: row.id, custom });
    }
    if lab.is_running() {
        for (at, name) in edited_objects(lab, &changes)? {
            all[at].custom.push(name);
        }
    }
    Ok(all)
}

/// The plan of the same lab with one setting the other way.
fn opposite(spec: &Spec, setting: Setting, mode: Mode) -> Plan {
    let mut settings = spec.modes();
    settings.put(setting, if mode == Mode::Insecure { Mode::Hardened } else { Mode::Insecure });
    let mut other = spec.clone();
    other.settings = settings.departures_from(other.profile);
    plan(&other)
}

/// Whether anything that runs reads a file: what only kubeadm reads tells how a lab was made, not how it is.
fn is_read(change: &FileChange) -> bool {
    let path = change.path();
    let used_up = path == Path::new(BOOTSTRAP);
    !used_up && !path.starts_with("/etc/kubernetes/addons") && !path.ends_with("kubeadm-config.yaml")
}

fn as_planned(lab: &LabDir, change: &FileChange, material: &Material) -> Result<bool, SwitchError> {
    let text = |file: &Option<_>| match file {
        Some(crate::lab::plan::PlannedFile { contents, .. }) => render(contents, material),
        None => Ok(String::new()),
    };
    let (mine, other) = (text(&change.before)?, text(&change.after)?);
    let disk = Tree::of(lab, &change.host)?.read(change.path())?;
    let Some(disk) = disk else { return Ok(change.before.is_none() || change.was_grown) };
    // The file is there in the other mode alone; what a role wrote for itself is not an edit.
    if change.before.is_none() {
        return Ok(change.grown);
    }
    let disk = String::from_utf8_lossy(&disk);
    let count = |text: &str, line: &str| text.lines().filter(|there| *there == line).count();
    let (gone, fresh) = lines::only_in(&mine, &other);
    Ok(gone.iter().chain(&fresh).all(|line| count(&disk, line) == count(&mine, line)))
}

/// Which of these objects are not as the plan has them, by the number that came with them.
fn edited_objects(
    lab: &LabDir,
    changes: &[(usize, ObjectChange)],
) -> Result<Vec<(usize, String)>, SwitchError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SwitchError::Runtime)?;
    let looked = runtime.block_on(async {
        let client = client::from_kubeconfig(lab.kubeconfig())?;
        Ok::<_, SwitchError>(tokio::time::timeout(PATIENCE, compare(&client, changes)).await)
    })?;
    // An API server that does not answer leaves the files to speak.
    Ok(looked.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_default())
}

async fn compare(client: &Client, changes: &[(usize, ObjectChange)]) -> anyhow::Result<Vec<(usize, String)>> {
    let mut seen: BTreeMap<String, Option<Value>> = BTreeMap::new();
    let mut edited = Vec::new();
    for (at, change) in changes {
        let name = change.name();
        let Some(object) = change.before.as_ref().or(change.after.as_ref()) else { continue };
        if !seen.contains_key(&name) {
            seen.insert(name.clone(), objects::live(client, object).await?);
        }
        let live = seen.get(&name).and_then(Option::as_ref);
        let as_planned = match (&change.before, live) {
            (Some(planned), Some(live)) => objects::agrees(planned, live),
            (None, live) => live.is_none(),
            (Some(_), None) => false,
        };
        if !as_planned && name != "ConfigMap/kube-system/kubelet-config" {
            edited.push((*at, name));
        }
    }
    Ok(edited)
}
