//! What a switch is about to do, on disk while it does it: one that finds another's note undoes that first.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::lab::paths::Mode;
use crate::lab::state::{LabDir, StateError};

fn path(lab: &LabDir) -> PathBuf {
    lab.state.join("switch.json")
}

pub fn write(lab: &LabDir, target: &BTreeMap<String, Mode>) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(target).expect("names and modes have a JSON form");
    lab.write(&path(lab), 0o600, &bytes)
}

fn borrowed(lab: &LabDir) -> PathBuf {
    lab.state.join("borrowed.json")
}

/// Notes the settings a lab is to be given back with.
pub fn borrow(lab: &LabDir, settings: &BTreeMap<String, Mode>) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(settings).expect("names and modes have a JSON form");
    lab.write(&borrowed(lab), 0o600, &bytes)
}

/// The settings of a lab that was not given back.
pub fn owed(lab: &LabDir) -> Option<BTreeMap<String, Mode>> {
    serde_json::from_slice(&std::fs::read(borrowed(lab)).ok()?).ok()
}

/// The lab is given back.
pub fn give_back(lab: &LabDir) -> Result<(), StateError> {
    remove(borrowed(lab))
}

/// The settings an interrupted switch was on its way to.
pub fn read(lab: &LabDir) -> Option<BTreeMap<String, Mode>> {
    serde_json::from_slice(&std::fs::read(path(lab)).ok()?).ok()
}

pub fn clear(lab: &LabDir) -> Result<(), StateError> {
    remove(path(lab))
}

fn remove(path: PathBuf) -> Result<(), StateError> {
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StateError::Read { path, source })
        }
        _ => Ok(()),
    }
}
