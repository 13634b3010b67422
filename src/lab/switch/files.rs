//! What a switch makes of one file: the plan's new text where nobody edited, else the learner's text with
//! only the plan's own lines changed.

use super::lines;
use crate::lab::files::{FilesError, Tree, render};
use crate::lab::material::Material;
use crate::lab::plan::{FileChange, PlannedFile};

/// A file about to change.
#[derive(Debug)]
pub struct Rewrite {
    pub host: String,
    /// Where and with which permissions.
    pub file: PlannedFile,
    pub before: Option<Vec<u8>>,
    pub after: Option<String>,
    /// What the plan alone would have there; the record an edit is told by.
    pub planned: Option<String>,
    /// Lines of somebody's that gave way.
    pub overwritten: Vec<String>,
}

/// What becomes of a file; nothing when it is as it should be.
pub fn rewrite(tree: &Tree, change: &FileChange, material: &Material) -> Result<Option<Rewrite>, FilesError> {
    let rendered =
        |file: &Option<PlannedFile>| file.as_ref().map(|file| render(&file.contents, material)).transpose();
    let (old, new) = (rendered(&change.before)?, rendered(&change.after)?);
    let disk = tree.read(change.path())?;
    // What a role writes itself is not made for it.
    if change.grown && disk.is_none() {
        return Ok(None);
    }
    let Some(file) = change.after.clone().or_else(|| change.before.clone()) else { return Ok(None) };
    let text = disk.as_deref().map(String::from_utf8_lossy);
    let (after, overwritten) = match (&old, &new, &text) {
        (_, Some(new), Some(text)) if text == new => return Ok(None),
        (_, None, None) => return Ok(None),
        (Some(old), Some(new), Some(text)) if text != old => {
            let merged = lines::merge(old, text, new);
            (Some(lines::each_flag_once(old, new, &merged.text)), merged.overwritten)
        }
        (Some(old), None, Some(text)) if text != old => (None, lines::only_in(old, text).1),
        (None, Some(new), Some(text)) => (Some(new.clone()), lines::only_in(new, text).1),
        (_, new, _) => (new.clone(), Vec::new()),
    };
    Ok(Some(Rewrite { host: change.host.clone(), file, before: disk, after, planned: new, overwritten }))
}

impl Rewrite {
    /// `node-1:/var/lib/kubelet/config.yaml`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.host, self.file.path.display())
    }

    pub fn write(&self, tree: &Tree) -> Result<(), FilesError> {
        match &self.after {
            Some(text) => tree.write(&self.file, text.as_bytes()),
            None => tree.remove(&self.file.path),
        }
    }

    pub fn undo(&self, tree: &Tree) -> Result<(), FilesError> {
        match &self.before {
            Some(bytes) => tree.write(&self.file, bytes),
            None => tree.remove(&self.file.path),
        }
    }
}
