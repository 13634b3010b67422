//! Files put back as they were planned, whatever an editor made of them: how an exercise begins again.
//!
//! The switch respects what somebody wrote by hand; this does not, and is asked for by name.

use std::collections::BTreeSet;
use std::path::Path;

use super::apply::{PATIENCE, asked};
use super::{Spec, SwitchError};
use crate::lab::files::{Record, Tree, render};
use crate::lab::material::Material;
use crate::lab::plan::{BOOTSTRAP, KUBELET_CONF, plan, readers};
use crate::lab::protocol::{Control, Request};
use crate::lab::state::LabDir;

/// What the caller wants in a file beside what is planned: `(host, path, text)` to the text it is to have.
pub type Amend<'a> = &'a dyn Fn(&str, &Path, String) -> String;

/// Writes every planned file anew that is different, and restarts who reads it. Says who turned.
pub fn restore(lab: &LabDir, spec: &Spec, amend: Amend<'_>) -> Result<Vec<String>, SwitchError> {
    let material = Material::of(lab)?;
    let plan = plan(spec);
    let control = Control::connect(lab)?;
    asked(control.ask(&Request::Hold)?)?;
    let mut record = Record::read(lab);
    let mut turned = BTreeSet::new();
    for host in &plan.hosts {
        let tree = Tree::of(lab, &host.name)?;
        let grown = host.grown.iter().map(|file| (file, true));
        for (file, grown) in host.files.iter().map(|file| (file, false)).chain(grown) {
            let planned = render(&file.contents, &material)?;
            let body = amend(&host.name, &file.path, planned.clone());
            let there = tree.read(&file.path)?;
            // What a role writes for itself it makes again where it is missing; who has joined forgets how.
            let joined = || tree.read(Path::new(KUBELET_CONF)).map(|conf| conf.is_some());
            let gone = there.is_none() && (grown || file.path == Path::new(BOOTSTRAP) && joined()?);
            if gone || there.as_deref() == Some(body.as_bytes()) {
                continue;
            }
            tree.write(file, body.as_bytes())?;
            record.note(&host.name, &file.path, Some(&planned));
            turned.extend(readers(host, &file.path));
        }
    }
    if turned.is_empty() {
        return Ok(Vec::new());
    }
    record.save(lab)?;
    let restart: Vec<String> = turned.into_iter().collect();
    match control.ask_within(&Request::Turn { restart: restart.clone() }, PATIENCE)? {
        Some(reply) => asked(reply)?,
        None => {
            let (roles, limit) = (restart.join(", "), PATIENCE);
            return Err(SwitchError::Late { roles, limit, said: String::new() });
        }
    }
    Ok(restart)
}
