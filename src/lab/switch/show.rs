//! A switch as a person reads it before or after: unified differences of files, command lines and objects.

use serde_json::Value;

use super::{Step, SwitchError, files, lines};
use crate::lab::files::Tree;
use crate::lab::material::Material;
use crate::lab::plan::{Command, Contents, FileChange, Plan, PlannedFile, RoleChange, Turn};
use crate::lab::state::LabDir;

/// Longer words (certificates, keys) are cut: they are in the files for who needs them.
const LONGEST: usize = 120;

pub fn in_words(lab: &LabDir, material: &Material, step: &Step) -> Result<String, SwitchError> {
    let mut text = String::new();
    // What lies among the addons is shown as the objects it holds.
    let told = |change: &&FileChange| !change.path().starts_with("/etc/kubernetes/addons");
    for change in step.difference.files.iter().filter(told) {
        let tree = Tree::of(lab, &change.host)?;
        let Some(rewrite) = files::rewrite(&tree, change, material)? else { continue };
        // A private key is nothing to print.
        if [&change.before, &change.after].iter().any(|file| file.as_ref().is_some_and(is_key)) {
            text += &format!("{} {}\n", if change.after.is_some() { "+key" } else { "-key" }, rewrite.name());
            continue;
        }
        let before = rewrite.before.as_deref().map(String::from_utf8_lossy);
        let names = [before.is_some(), rewrite.after.is_some()]
            .map(|there| if there { rewrite.name() } else { "/dev/null".into() });
        text += &difference(
            [&names[0], &names[1]],
            &before.unwrap_or_default(),
            rewrite.after.as_deref().unwrap_or_default(),
        );
    }
    for role in &step.difference.roles {
        text += &match role.turn {
            Turn::Comes => format!("+role {}\n", role.name()),
            Turn::Goes => format!("-role {}\n", role.name()),
            Turn::Restarts => {
                let (old, new) = (argv(&step.before, role), argv(&step.after, role));
                difference([&role.name(), &role.name()], &old, &new)
            }
        };
    }
    for change in &step.difference.objects {
        let yaml = |object: &Option<Value>| {
            object.as_ref().and_then(|object| serde_yaml_ng::to_string(object).ok()).unwrap_or_default()
        };
        let names = [change.before.is_some(), change.after.is_some()]
            .map(|there| if there { change.name() } else { "/dev/null".into() });
        text += &difference([&names[0], &names[1]], &yaml(&change.before), &yaml(&change.after));
    }
    Ok(text)
}

fn is_key(file: &PlannedFile) -> bool {
    matches!(file.contents, Contents::Key(_) | Contents::SshKey(_))
}

/// The fixed words of a role's command line, one a line; those in a manifest are the file's.
fn argv(plan: &Plan, change: &RoleChange) -> String {
    let role = plan.roles().find(|role| role.name == change.role && role.host == change.host);
    match role.map(|role| &role.command) {
        Some(Command::Argv { argv, .. }) => argv.iter().map(|word| format!("{word}\n")).collect(),
        _ => String::new(),
    }
}

fn difference([old, new]: [&str; 2], before: &str, after: &str) -> String {
    let body = lines::unified(before, after);
    if body.is_empty() {
        return body;
    }
    let short = |line: &str| match (secret(line), line.char_indices().nth(LONGEST)) {
        (Some(name), _) => format!("{name}: (not shown)\n"),
        (None, Some((at, _))) => format!("{}…\n", &line[..at]),
        (None, None) => format!("{line}\n"),
    };
    let body: String = body.lines().map(short).collect();
    format!("--- {old}\n+++ {new}\n{body}")
}

/// What a line of a kubeconfig names, if whoever reads the rest of it can act for somebody.
fn secret(line: &str) -> Option<&str> {
    let (name, value) = line.split_once(": ")?;
    let bare = name.trim_start_matches([' ', '+', '-']);
    (["token", "client-key-data"].contains(&bare) && !value.is_empty()).then_some(name)
}
