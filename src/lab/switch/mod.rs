//! The switch: settings of a running lab change, and everything that follows from them.
//!
//! ```text
//! settings ─ plans ─ difference ─┬─ objects ─ files ─ roles turn, serve ─┐ a phase after the other
//!                                └─◀───── a failure undoes it all ◀──────┴─▶ lab.yaml
//! ```
//! It stands for the administrator who edits a manifest, restarts what reads it and looks whether it works.
//! What somebody else edited in the same files stays ([`lines`]); lines that had to give way are named. One
//! that was cut short is undone by the next ([`journal`]). Nothing here knows what a setting means: that is
//! the plan's.

mod apply;
mod files;
mod journal;
mod lines;
mod live;
mod restore;
mod settle;
mod show;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::files::FilesError;
use super::material::{Material, MaterialError};
use super::paths::{Mode, PathInfo, Setting, SettingInfo, Settings, rows};
use super::plan::{Difference, Direction, Plan, plan};
use super::protocol::ProtocolError;
use super::spec::Spec;
use super::state::{LabDir, StateError};
use crate::client::ClientError;

pub use live::{Live, as_found, look};
pub use restore::restore;

/// Why a switch did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0:#}")]
    Object(anyhow::Error),
    #[error("{0}")]
    Lab(String),
    #[error("{roles} did not serve within {limit:?}{said}")]
    Late { roles: String, limit: Duration, said: String },
    #[error("the API server does not reach the kubelet of {node}: {error}")]
    Kubelet { node: String, error: String },
    #[error("start a runtime")]
    Runtime(#[source] std::io::Error),
    #[error("{cause}; everything was put back as it was")]
    Undone {
        #[source]
        cause: Box<SwitchError>,
    },
    #[error("{cause}; and it could not all be put back: {undo}")]
    Stuck { cause: Box<SwitchError>, undo: Box<SwitchError> },
}

/// One setting that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub path: &'static str,
    pub setting: &'static str,
    pub from: Mode,
    pub to: Mode,
}

/// What a switch did.
#[derive(Debug, Default)]
pub struct Done {
    /// `role@host`, in the order they turned.
    pub restarted: Vec<String>,
    /// What somebody had edited and is no more.
    pub overwritten: Vec<String>,
    /// What follows from it and has not yet.
    pub late: Vec<String>,
    pub took: Duration,
}

/// From one plan to the next, all in one direction.
#[derive(Debug)]
struct Step {
    before: Plan,
    after: Plan,
    difference: Difference,
    direction: Direction,
    /// Objects are made exactly what is planned, whatever somebody added to them.
    exactly: bool,
}

/// A switch that is decided and not yet done.
#[derive(Debug)]
pub struct Switch {
    pub changed: Vec<Change>,
    spec: Spec,
    steps: Vec<Step>,
}

impl Switch {
    /// What leads from a lab's settings to these.
    pub fn to(spec: &Spec, wanted: &Settings) -> Switch {
        let now = spec.modes();
        let changed = rows().filter_map(|row| change(row, &now, wanted)).collect();
        let mut target = spec.clone();
        target.settings = wanted.departures_from(spec.profile);
        // What closes does so before what opens.
        let mut between = now.clone();
        for (_, row) in rows() {
            let closer = wanted.mode(row.id).rank() > now.mode(row.id).rank();
            between.put(row.id, if closer { wanted } else { &now }.mode(row.id));
        }
        let mut halfway = spec.clone();
        halfway.settings = between.departures_from(spec.profile);
        let step = |from: &Spec, to: &Spec, direction| {
            let (before, after) = (plan(from), plan(to));
            Step {
                difference: Difference::between(&before, &after),
                before,
                after,
                direction,
                exactly: false,
            }
        };
        let mut steps =
            vec![step(spec, &halfway, Direction::Hardening), step(&halfway, &target, Direction::Softening)];
        steps.retain(|step| !step.difference.is_empty());
        Switch { changed, spec: target, steps }
    }

    /// The same in one step, the API server first: for who opens one thing and closes another at once and can
    /// bear what stands open for the moment between.
    pub fn straight(spec: &Spec, wanted: &Settings) -> Switch {
        let mut switch = Switch::to(spec, wanted);
        let (before, after) = (plan(spec), plan(&switch.spec));
        let difference = Difference::between(&before, &after);
        let direction = Direction::Softening;
        switch.steps = vec![Step { before, after, difference, direction, exactly: false }];
        switch.steps.retain(|step| !step.difference.is_empty());
        switch
    }

    /// The same, and what hands have made of settings that keep their mode is put back as it was.
    pub fn mending(mut self, edited: &[Live]) -> Switch {
        let modes = self.spec.modes();
        for live in edited.iter().filter(|live| !live.edited.is_empty()) {
            let (mode, after) = (modes.mode(live.setting), plan(&self.spec));
            for other in
                [Mode::Insecure, Mode::Partial, Mode::Hardened].into_iter().filter(|one| *one != mode)
            {
                let before = live::other_way(&self.spec, live.setting, other);
                let difference = Difference::between(&before, &after).only(&live.edited);
                let direction =
                    if mode == Mode::Insecure { Direction::Softening } else { Direction::Hardening };
                if !difference.is_empty() {
                    self.steps.push(Step {
                        before: after,
                        after: plan(&self.spec),
                        difference,
                        direction,
                        exactly: true,
                    });
                    break;
                }
            }
        }
        self
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The unified difference of files, command lines and objects.
    pub fn show(&self, lab: &LabDir) -> Result<String, SwitchError> {
        let material = Material::of(lab)?;
        self.steps.iter().map(|step| show::in_words(lab, &material, step)).collect()
    }

    /// Does it. After an error the lab is as it was, unless the error says otherwise.
    pub fn apply(&self, lab: &LabDir) -> Result<Done, SwitchError> {
        self.noting(lab, &self.spec.settings)
    }

    /// The same, with these settings in the note by which a switch that is cut short is undone.
    fn noting(&self, lab: &LabDir, half: &BTreeMap<String, Mode>) -> Result<Done, SwitchError> {
        let began = Instant::now();
        let material = Material::of(lab)?;
        let mut worker = apply::Worker::new(lab, &material)?;
        journal::write(lab, half)?;
        let outcome = self.steps.iter().try_for_each(|step| worker.step(step));
        let outcome = outcome.and_then(|()| worker.kubelets_answer(&self.spec.modes(), &self.steps));
        if let Err(cause) = outcome {
            let undone = worker.undo();
            return Err(match undone.and_then(|()| journal::clear(lab).map_err(Into::into)) {
                Ok(()) => SwitchError::Undone { cause: Box::new(cause) },
                Err(undo) => SwitchError::Stuck { cause: Box::new(cause), undo: Box::new(undo) },
            });
        }
        let late = worker.settle(&self.steps);
        lab.write(&lab.state.join("lab.yaml"), 0o600, self.spec.to_yaml().as_bytes())?;
        worker.keep()?;
        journal::clear(lab)?;
        let (restarted, overwritten) = worker.done();
        Ok(Done { restarted, overwritten, late, took: began.elapsed() })
    }
}

/// Notes the settings a lab has, before somebody tries others on it for a while.
pub fn borrow(lab: &LabDir, spec: &Spec) -> Result<(), SwitchError> {
    Ok(journal::borrow(lab, &spec.settings)?)
}

/// Gives a borrowed lab back as it was; says whether it was borrowed. What the caller knows of its settings is
/// old then.
pub fn give_back(lab: &LabDir, spec: &Spec) -> Result<bool, SwitchError> {
    let Some(settings) = journal::owed(lab) else { return Ok(false) };
    let mut wanted = spec.clone();
    wanted.settings = settings;
    Switch::to(spec, &wanted.modes()).apply(lab)?;
    journal::give_back(lab)?;
    Ok(true)
}

/// Undoes a switch that was cut short, by a kill or a pulled plug, and gives back what was borrowed by who was;
/// says whether there was anything. What the caller knows of the lab's settings may be old then.
pub fn mend(lab: &LabDir, spec: &Spec) -> Result<bool, SwitchError> {
    let undone = undo_half(lab, spec)?;
    Ok(give_back(lab, spec)? || undone)
}

fn undo_half(lab: &LabDir, spec: &Spec) -> Result<bool, SwitchError> {
    let Some(half) = journal::read(lab) else { return Ok(false) };
    let mut from = spec.clone();
    from.settings = half.clone();
    // Cut short itself, it has still to be undone from there.
    Switch::to(&from, &spec.modes()).noting(lab, &half)?;
    Ok(true)
}

fn change(
    (path, row): (&'static PathInfo, &'static SettingInfo),
    now: &Settings,
    wanted: &Settings,
) -> Option<Change> {
    let (from, to) = (now.mode(row.id), wanted.mode(row.id));
    (from != to).then_some(Change { path: path.name, setting: row.name, from, to })
}

/// Whether the API server can reach kubelets under these settings, as upstream would: one that verifies
/// needs kubelets with certificates to verify.
pub fn kubelets_reachable(settings: &Settings) -> bool {
    !settings.hardened(Setting::ToKubeletCa) || settings.hardened(Setting::ToKubeletServing)
}

#[cfg(test)]
mod tests;
