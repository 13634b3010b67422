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
use crate::sys::ready::Readable;

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

    /// Restarts, stops and starts roles whose manifests changed.
    pub(super) fn read_manifests(&mut self) {
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
