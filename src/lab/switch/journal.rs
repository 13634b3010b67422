//! What a switch is about to do, on disk while it does it: one that finds another's note undoes that first.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::lab::paths::Mode;
use crate::lab::spec::Spec;
use crate::lab::state::{LabDir, StateError};

fn path(lab: &LabDir) -> PathBuf {
    lab.state.join("switch.json")
}

pub fn write(lab: &LabDir, target: &Spec) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(&target.settings).expect("names and modes have a JSON form");
    lab.write(&path(lab), 0o600, &bytes)
}

/// The settings an interrupted switch was on its way to.
pub fn read(lab: &LabDir) -> Option<BTreeMap<String, Mode>> {
    serde_json::from_slice(&std::fs::read(path(lab)).ok()?).ok()
}

pub fn clear(lab: &LabDir) -> Result<(), StateError> {
    let path = path(lab);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::Read { path, source })
        }
        _ => Ok(()),
    }
}
