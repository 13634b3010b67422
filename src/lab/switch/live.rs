//! How a lab's settings really are: as the switch left them, or as somebody's editor or kubectl did.
//!
//! For each setting, the lines and objects that tell its mode from the others are looked for on disk and in
//! the API. What is elsewhere in the same files is nobody's mode. Where they are those of another mode, that is
//! the mode, whoever wrote them; where they are no mode's, it is custom.

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
use crate::lab::paths::{Mode, Setting, Settings, rows};
use crate::lab::plan::{BOOTSTRAP, Difference, FileChange, ObjectChange, Plan, plan};
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;

/// How long the API server may take to say what is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// A setting as it is.
#[derive(Debug)]
pub struct Live {
    pub setting: Setting,
    /// The mode it is in; nothing where it is in none.
    pub mode: Option<Mode>,
    /// Where it is not as it was last switched.
    pub edited: Vec<String>,
}

/// Looks at settings of a lab; at the API only where it runs.
pub fn look(lab: &LabDir, spec: &Spec, settings: &[Setting]) -> Result<Vec<Live>, SwitchError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SwitchError::Runtime)?;
    runtime.block_on(async {
        let client = lab.is_running().then(|| client::from_kubeconfig(lab.kubeconfig())).transpose()?;
        let mut eyes = Eyes { lab, material: Material::of(lab)?, client, seen: BTreeMap::new() };
        let mut all = Vec::new();
        for setting in settings {
            all.push(eyes.look(spec, *setting).await?);
        }
        Ok(all)
    })
}

/// Every setting in the mode it is really in; one in none is as it was last switched.
pub fn as_found(lab: &LabDir, spec: &Spec) -> Result<Settings, SwitchError> {
    let mut settings = spec.modes();
    let all: Vec<Setting> = rows().map(|(_, row)| row.id).collect();
    for live in look(lab, spec, &all)? {
        if let Some(mode) = live.mode.filter(|mode| *mode != settings.mode(live.setting)) {
            settings.put(live.setting, mode);
        }
    }
    Ok(settings)
}

/// The plan of the same lab with one setting another way.
pub fn other_way(spec: &Spec, setting: Setting, mode: Mode) -> Plan {
    let mut settings = spec.modes();
    settings.put(setting, mode);
    let mut other = spec.clone();
    other.settings = settings.departures_from(other.profile);
    plan(&other)
}

struct Eyes<'a> {
    lab: &'a LabDir,
    material: Material,
    /// Until the API server does not answer; then the files speak alone.
    client: Option<Client>,
    seen: BTreeMap<String, Option<Value>>,
}

impl Eyes<'_> {
    async fn look(&mut self, spec: &Spec, setting: Setting) -> Result<Live, SwitchError> {
        let (now, mode) = (plan(spec), spec.modes().mode(setting));
        // Halfway is often the same as one of the ends, which then has its name.
        let others: Vec<(Mode, Plan)> = [Mode::Hardened, Mode::Insecure, Mode::Partial]
            .into_iter()
            .filter(|other| *other != mode)
            .map(|other| (other, other_way(spec, setting, other)))
            .filter(|(_, other)| *other != now)
            .collect();
        let mut edited = Vec::new();
        for (_, other) in &others {
            edited.extend(self.not_as(&now, other).await?);
        }
        edited.sort();
        edited.dedup();
        if edited.is_empty() {
            return Ok(Live { setting, mode: Some(mode), edited });
        }
        let mut found = None;
        for (other, plan) in &others {
            if found.is_none() && self.not_as(plan, &now).await?.is_empty() {
                found = Some(*other);
            }
        }
        Ok(Live { setting, mode: found, edited })
    }

    /// What is not as one plan has it, of that which tells it from the other.
    async fn not_as(&mut self, plan: &Plan, other: &Plan) -> Result<Vec<String>, SwitchError> {
        let difference = Difference::between(plan, other);
        let mut places = Vec::new();
        for change in difference.files.iter().filter(|change| is_read(change)) {
            if !as_planned(self.lab, change, &self.material)? {
                places.push(format!("{}:{}", change.host, change.path().display()));
            }
        }
        for change in &difference.objects {
            let Some(client) = self.client.clone() else { break };
            let looked = tokio::time::timeout(PATIENCE, self.object_as_planned(&client, change)).await;
            match looked {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => places.push(change.name()),
                _ => self.client = None,
            }
        }
        Ok(places)
    }

    async fn object_as_planned(&mut self, client: &Client, change: &ObjectChange) -> anyhow::Result<bool> {
        let name = change.name();
        let Some(object) = change.before.as_ref().or(change.after.as_ref()) else { return Ok(true) };
        // What only kubeadm reads tells how a lab was made.
        if name == "ConfigMap/kube-system/kubelet-config" {
            return Ok(true);
        }
        if !self.seen.contains_key(&name) {
            self.seen.insert(name.clone(), objects::live(client, object).await?);
        }
        let live = self.seen.get(&name).and_then(Option::as_ref);
        Ok(match (&change.before, live) {
            (Some(planned), Some(live)) => {
                objects::agrees(planned, live) && objects::is_all(client, planned, live).await?
            }
            (None, live) => live.is_none(),
            (Some(_), None) => false,
        })
    }
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
