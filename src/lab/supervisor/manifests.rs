//! Static-pod manifests under the administrator's hand: a changed file restarts its role, a removed one
//! stops it, a new one starts it, as a kubelet does with `/etc/kubernetes/manifests`.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::events::Supervisor;
use super::role::Input;
use super::start::Role;
use crate::lab::files::Tree;
use crate::lab::hostroot;
use crate::lab::plan::{MANIFESTS, from_manifest};
use crate::sys::ready::Readable;

/// The host whose manifests may be written by hand.
const CONTROL: &str = "control";

/// Says that something in one of the directories may have changed.
pub struct Manifests {
    inotify: Inotify,
    ready: Readable,
}

impl Manifests {
    /// Watches directories; one that is missing is not watched.
    pub fn watch(directories: &BTreeSet<PathBuf>) -> io::Result<Manifests> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let wanted = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        for directory in directories {
            match inotify.add_watch(directory, wanted) {
                Ok(_) | Err(nix::Error::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Manifests { ready: Readable::of(&inotify)?, inotify })
    }

    /// Waits for the next change.
    pub async fn changed(&self) -> io::Result<()> {
        self.ready.until(|| Ok(self.inotify.read_events().map(drop)?)).await
    }
}

impl Supervisor {
    pub(super) fn manifest_directories(&self) -> BTreeSet<PathBuf> {
        let watched = |role: &Role| {
            let directory = role.plan.command.watched()?.parent()?.strip_prefix("/").ok()?.to_owned();
            Some(self.lab.host(&role.plan.host).join(directory))
        };
        self.roles.iter().filter_map(watched).collect()
    }

    /// Manifests that no plan has, written by hand: a program the binary has makes a role, as any static pod
    /// would run on a kubelet.
    pub(super) fn adopt_manifests(&mut self) {
        let Ok(entries) = std::fs::read_dir(self.lab.host(CONTROL).join(MANIFESTS.trim_start_matches('/')))
        else {
            return;
        };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".yaml")) else { continue };
            let known = |role: &Role| role.plan.host == CONTROL && role.plan.name == name;
            if self.roles.iter().any(known) {
                continue;
            }
            let plan = from_manifest(name);
            let Ok(tree) = Tree::of(&self.lab, CONTROL) else { continue };
            let read = |path: &std::path::Path| match tree.read(path) {
                Ok(Some(bytes)) => String::from_utf8(bytes).map_err(io::Error::other),
                _ => Err(io::ErrorKind::NotFound.into()),
            };
            let program = plan.command.argv(read).ok().and_then(|argv| argv.into_iter().next());
            if program.is_some_and(|program| hostroot::LINKS.contains(&program.as_str())) {
                tracing::info!(role = name, "A manifest appeared");
                self.roles.push(Role::new(plan));
            }
        }
    }

    /// Restarts, stops and starts roles whose manifests changed.
    pub(super) fn read_manifests(&mut self) {
        self.adopt_manifests();
        if self.held.is_some() {
            return;
        }
        for at in 0..self.roles.len() {
            let role = &self.roles[at];
            let Some(path) = role.plan.command.watched() else { continue };
            let Ok(tree) = Tree::of(&self.lab, &role.plan.host) else { continue };
            let Ok(now) = tree.read(path) else { continue };
            if now == role.manifest {
                continue;
            }
            let input = match (&role.manifest, &now) {
                (_, None) => Input::Stop,
                (None, Some(_)) => Input::Start,
                (Some(_), Some(_)) => Input::Restart,
            };
            tracing::info!(role = role.plan.name, ?input, "The manifest changed");
            self.roles[at].manifest = now;
            self.step(at, input);
        }
    }

    /// Whether there is something to start a role from.
    pub(super) fn has_command(&self, at: usize) -> bool {
        let plan = &self.roles[at].plan;
        let Some(path) = plan.command.watched() else { return true };
        let text = Tree::of(&self.lab, &plan.host).and_then(|tree| tree.read(path));
        // What cannot be read is said when it is started.
        !matches!(text, Ok(None))
    }
}
