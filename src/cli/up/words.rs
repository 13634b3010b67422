//! What `up` says: the plan of `--dry-run`, and the lines it ends with.

use std::path::PathBuf;

use serde_json::json;

use super::Up;
use crate::cli::kubeconfig;
use crate::cli::progress::Progress;
use crate::lab::plan::{Contents, Plan};
use crate::lab::spec::Spec;
use crate::lab::state::LabDir;

/// How this program is called from where the user is.
pub fn myself(lab: &LabDir) -> String {
    let mut words = program();
    // What the environment says it will still say when the command is pasted.
    let place = std::env::var_os("MINILAB_STATE_DIR").map(PathBuf::from);
    if LabDir::new(&lab.name, place.as_deref()).is_ok_and(|usual| usual.state != lab.state) {
        words += &format!(" --state-dir {}", lab.state.parent().unwrap_or(&lab.state).display());
    }
    let usual = std::env::var("MINILAB_LAB").unwrap_or_else(|_| "minilab".into());
    if usual != lab.name {
        words += &format!(" --lab {}", lab.name);
    }
    words
}

/// `minilab` where the shell finds it by that name, else its path.
fn program() -> String {
    let Ok(exe) = std::env::current_exe() else { return "minilab".into() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("minilab")).find(|file| file.is_file());
    if found.and_then(|file| file.canonicalize().ok()).is_some_and(|file| file == exe) {
        return "minilab".into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let near = exe.strip_prefix(&here).unwrap_or(&exe);
    // A shell looks for a bare word on PATH alone.
    match near.components().count() {
        1 => format!("./{}", near.display()),
        _ => near.display().to_string(),
    }
}

impl Up {
    /// The lab's address, whose context is current, and three commands to go on with.
    pub(super) fn say_goodbye(
        &self,
        lab: &LabDir,
        spec: &Spec,
        merged: Option<anyhow::Result<kubeconfig::Merged>>,
        progress: &mut Progress,
    ) {
        let took = progress.elapsed();
        progress.clear();
        let (merged, problem) = match merged {
            Some(Ok(merged)) => (Some(merged), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        progress.json(&json!({
            "result": "up",
            "lab": lab.name,
            "server": format!("https://127.0.0.1:{}", spec.port),
            "kubeconfig": lab.kubeconfig(),
            "context": merged.as_ref().map(|merged| &merged.context),
            "previousContext": merged.as_ref().and_then(|merged| merged.previous.as_ref()),
            "tookMs": took.as_secs_f64() * 1000.0,
        }));
        if let Some(error) = problem {
            eprintln!("warning: your kubeconfig is unchanged: {error:#}");
        }
        if self.quiet || self.output.json() {
            return;
        }
        eprintln!("Lab {} is up at https://127.0.0.1:{} ({} ms)", lab.name, spec.port, took.as_millis());
        let me = myself(lab);
        let kubectl = match &merged {
            Some(merged) => {
                eprintln!("{}", merged.line());
                "kubectl".to_owned()
            }
            None => format!("{me} kubectl"),
        };
        eprintln!("\n  {kubectl} get nodes -o wide");
        eprintln!(
            "  {kubectl} run web --image=minilab/toolbox --restart=Never -- sh -c 'while :; do date; sleep 1; done'"
        );
        eprintln!("  {me} down");
    }
}

/// A plan for people: addresses, files, and the command lines roles are started with.
pub fn in_words(plan: &Plan) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for host in &plan.hosts {
        let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "host {}  {}", host.name, addresses.join(" "));
        for file in &host.files {
            let _ = writeln!(text, "  file {:04o} {}", file.mode, file.path.display());
        }
        for role in &host.roles {
            let planned = |path: &std::path::Path| {
                let file = host.files.iter().find(|file| file.path == path);
                match file.map(|file| &file.contents) {
                    Some(Contents::Text(text)) => Ok(text.clone()),
                    _ => Err(std::io::ErrorKind::NotFound.into()),
                }
            };
            let argv =
                role.command.argv(planned).map_or_else(|error| error.to_string(), |argv| argv.join(" "));
            let _ = writeln!(text, "  role {argv}");
        }
    }
    text
}
