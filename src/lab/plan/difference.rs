//! From one plan to another: which files, objects and roles differ, and in which order they change.
//!
//! Pure, like the plans. A role restarts when its command line changed or a file that it reads; what a role
//! reads is what its command line names, and what those files name in turn. The order is part of the
//! difference ([`Difference::phases`]): what a door will need is made before it closes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::control::{KUBEADM_CONFIG, kubelet_defaults};
use super::{Command, Contents, HostPlan, Plan, PlannedFile, RolePlan};

/// Everything that differs between two plans of the same hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub files: Vec<FileChange>,
    pub objects: Vec<ObjectChange>,
    pub roles: Vec<RoleChange>,
}

/// A file that is another, comes or goes.
#[derive(Debug, Clone, PartialEq)]
pub struct FileChange {
    pub host: String,
    pub before: Option<PlannedFile>,
    pub after: Option<PlannedFile>,
    /// Written by a role itself: not made where it is missing.
    pub grown: bool,
    /// Was so before.
    pub was_grown: bool,
}

/// An API object that is another, comes or goes.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectChange {
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// What happens to a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Comes,
    Restarts,
    Goes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleChange {
    pub role: String,
    pub host: String,
    pub turn: Turn,
    /// The files it reads, before or after.
    reads: BTreeSet<PathBuf>,
}

/// Which way a switch goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Hardening,
    Softening,
}

/// One step of a switch: its objects are put (or removed), then its files, then its roles turn and serve.
#[derive(Debug, Default, PartialEq)]
pub struct Phase<'a> {
    pub objects: Vec<&'a ObjectChange>,
    pub files: Vec<&'a FileChange>,
    pub roles: Vec<&'a RoleChange>,
}

impl FileChange {
    pub fn path(&self) -> &Path {
        let either = self.after.as_ref().or(self.before.as_ref());
        either.map_or(Path::new("/"), |file| &file.path)
    }
}

impl RoleChange {
    /// `kubelet@node-1`.
    pub fn name(&self) -> String {
        format!("{}@{}", self.role, self.host)
    }
}

impl ObjectChange {
    /// `ClusterRole/minilab:monitoring`, with the namespace where there is one.
    pub fn name(&self) -> String {
        let object = self.after.as_ref().or(self.before.as_ref()).unwrap_or(&Value::Null);
        let word = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let place = word("/metadata/namespace").map(|space| format!("{space}/")).unwrap_or_default();
        let kind = word("/kind").unwrap_or_default();
        format!("{kind}/{place}{}", word("/metadata/name").unwrap_or_default())
    }
}

impl Difference {
    /// What leads from one plan to the other. Hosts that only one of them has are not looked at.
    pub fn between(before: &Plan, after: &Plan) -> Difference {
        let mut difference =
            Difference { files: Vec::new(), objects: objects(before, after), roles: Vec::new() };
        for new in &after.hosts {
            let Some(old) = before.hosts.iter().find(|host| host.name == new.name) else { continue };
            let files = files(old, new);
            difference.roles.extend(roles(old, new, &files));
            difference.files.extend(files);
        }
        difference
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.objects.is_empty() && self.roles.is_empty()
    }

    /// The part of it that is in these places (`node-1:/etc/…`, `Deployment/…`), and the roles that read those.
    pub fn only(mut self, places: &[String]) -> Difference {
        let meant = |place: String| places.contains(&place);
        self.files.retain(|file| meant(format!("{}:{}", file.host, file.path().display())));
        self.objects.retain(|object| meant(object.name()));
        let Difference { files, roles, .. } = &mut self;
        roles.retain(|role| {
            files.iter().any(|file| file.host == role.host && role.reads.contains(file.path()))
        });
        self
    }

    /// The order of a switch. Objects that come are there first and those that go leave last. Hardening, the
    /// API server turns after everybody else: whatever it will insist on (kubelets' certificates, a tunnel's
    /// agents) is there by then. Softening, it turns first: whatever the others will need of it (a token it
    /// knows) is there by then.
    pub fn phases(&self, direction: Direction) -> Vec<Phase<'_>> {
        let hub = |role: &RoleChange| role.role == "kube-apiserver";
        let objects = |go: bool| -> Vec<&ObjectChange> {
            self.objects.iter().filter(|change| change.after.is_none() == go).collect()
        };
        let roles = |central: bool| -> Vec<&RoleChange> {
            let wanted = |role: &&RoleChange| role.turn != Turn::Goes && hub(role) == central;
            self.roles.iter().filter(wanted).collect()
        };
        let of_hub = |file: &&FileChange| {
            self.roles
                .iter()
                .any(|role| hub(role) && role.host == file.host && role.reads.contains(file.path()))
        };
        let central = Phase {
            roles: roles(true),
            files: self.files.iter().filter(|file| of_hub(file)).collect(),
            ..Phase::default()
        };
        let others = Phase {
            roles: roles(false),
            files: self.files.iter().filter(|file| !of_hub(file)).collect(),
            ..Phase::default()
        };
        let first = Phase { objects: objects(false), ..Phase::default() };
        let last = Phase {
            objects: objects(true),
            roles: self.roles.iter().filter(|role| role.turn == Turn::Goes).collect(),
            ..Phase::default()
        };
        let mut phases = match direction {
            Direction::Hardening => vec![first, others, central, last],
            Direction::Softening => vec![first, central, others, last],
        };
        phases.retain(|phase| *phase != Phase::default());
        phases
    }
}

fn all_files(host: &HostPlan) -> impl Iterator<Item = (&PlannedFile, bool)> {
    host.files.iter().map(|file| (file, false)).chain(host.grown.iter().map(|file| (file, true)))
}

fn files(old: &HostPlan, new: &HostPlan) -> Vec<FileChange> {
    let find = |host: &HostPlan, path: &Path| {
        all_files(host).find(|(file, _)| file.path == path).map(|(file, grown)| (file.clone(), grown))
    };
    let mut changes = Vec::new();
    for (file, grown) in all_files(new) {
        let (before, was_grown) = find(old, &file.path).unzip();
        if before.as_ref() != Some(file) {
            let (host, after) = (new.name.clone(), Some(file.clone()));
            changes.push(FileChange { host, before, after, grown, was_grown: was_grown.unwrap_or(grown) });
        }
    }
    for (file, grown) in all_files(old).filter(|(file, _)| find(new, &file.path).is_none()) {
        let (host, before) = (new.name.clone(), Some(file.clone()));
        changes.push(FileChange { host, before, after: None, grown, was_grown: grown });
    }
    changes
}

fn roles(old: &HostPlan, new: &HostPlan, files: &[FileChange]) -> Vec<RoleChange> {
    let find = |host: &HostPlan, name: &str| host.roles.iter().find(|role| role.name == name).cloned();
    let change = |role: &RolePlan, turn, reads| RoleChange {
        role: role.name.clone(),
        host: role.host.clone(),
        turn,
        reads,
    };
    let mut changes = Vec::new();
    // What has done its work once is not asked to do it again.
    for role in new.roles.iter().filter(|role| !role.one_shot) {
        let mut reads = reads(new, role);
        match find(old, &role.name) {
            None => changes.push(change(role, Turn::Comes, reads)),
            Some(before) => {
                reads.extend(self::reads(old, &before));
                if before != *role || files.iter().any(|file| reads.contains(file.path())) {
                    changes.push(change(role, Turn::Restarts, reads));
                }
            }
        }
    }
    for role in old.roles.iter().filter(|role| find(new, &role.name).is_none()) {
        changes.push(change(role, Turn::Goes, reads(old, role)));
    }
    changes
}

/// Who of a host reads a file and runs on: `role@host`.
pub fn readers(host: &HostPlan, path: &Path) -> Vec<String> {
    let running = host.roles.iter().filter(|role| !role.one_shot && reads(host, role).contains(path));
    running.map(|role| format!("{}@{}", role.name, role.host)).collect()
}

/// The planned files a role reads: those its command line names, and those that these name.
fn reads(host: &HostPlan, role: &RolePlan) -> BTreeSet<PathBuf> {
    let (mut found, mut texts) = (BTreeSet::new(), Vec::new());
    match &role.command {
        Command::Manifest(path) => texts.push(path.display().to_string()),
        Command::Argv { argv, flags_from } => {
            texts.extend(argv.iter().cloned());
            texts.extend(flags_from.iter().map(|path| path.display().to_string()));
        }
    }
    while let Some(text) = texts.pop() {
        for (file, _) in all_files(host) {
            if !found.contains(&file.path) && mentions(&text, &file.path) {
                found.insert(file.path.clone());
                if let Contents::Text(text) | Contents::Template(text) = &file.contents {
                    texts.push(text.clone());
                }
            }
        }
    }
    found
}

/// Whether a text has a path in it, and not only the beginning of a longer one.
fn mentions(text: &str, path: &Path) -> bool {
    let path = path.to_string_lossy();
    let ends = |rest: &str| {
        !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || matches!(next, '.' | '-' | '_' | '/'))
    };
    text.match_indices(&*path).any(|(at, found)| ends(&text[at + found.len()..]))
}

fn objects(before: &Plan, after: &Plan) -> Vec<ObjectChange> {
    let (old, new) = (with_configuration(before), with_configuration(after));
    let name = |object: &Value| {
        let field = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
        [field("/kind"), field("/metadata/namespace"), field("/metadata/name")]
    };
    let find = |all: &[Value], object: &Value| all.iter().find(|other| name(other) == name(object)).cloned();
    let mut changes = Vec::new();
    for object in &new {
        let before = find(&old, object);
        if before.as_ref() != Some(object) {
            changes.push(ObjectChange { before, after: Some(object.clone()) });
        }
    }
    // What others refer to goes last.
    for object in old.iter().rev().filter(|object| find(&new, object).is_none()) {
        changes.push(ObjectChange { before: Some(object.clone()), after: None });
    }
    changes
}

/// The objects of a plan, and the ConfigMap in which kubeadm keeps the kubelets' configuration.
fn with_configuration(plan: &Plan) -> Vec<Value> {
    let files = plan.hosts.iter().flat_map(|host| &host.files);
    let config = files.into_iter().find(|file| file.path == Path::new(KUBEADM_CONFIG));
    let kept = config.and_then(|file| match &file.contents {
        Contents::Template(text) => kubelet_defaults(text),
        _ => None,
    });
    plan.objects.iter().cloned().chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::paths::{Mode, Profile, rows};
    use crate::lab::plan::plan;
    use crate::lab::spec::Spec;

    fn with(changes: &[(&str, Mode)]) -> Plan {
        let mut spec = Spec::new("minilab", 2, Profile::Default, 6443);
        spec.settings = changes.iter().map(|(name, mode)| ((*name).to_owned(), *mode)).collect();
        plan(&spec)
    }

    fn turned(difference: &Difference) -> Vec<String> {
        difference.roles.iter().map(|role| format!("{:?} {}", role.turn, role.name())).collect()
    }

    #[test]
    fn only_who_reads_a_changed_file_restarts() {
        let port = "kubelet-access.read-only-port";
        let difference = Difference::between(&with(&[]), &with(&[(port, Mode::Insecure)]));
        assert_eq!(turned(&difference), ["Restarts kubelet@node-1", "Restarts kubelet@node-2"]);
        let ca = "apiserver-to-kubelet.ca";
        let difference = Difference::between(&with(&[]), &with(&[(ca, Mode::Hardened)]));
        assert_eq!(turned(&difference), ["Restarts kube-apiserver@control"]);
        let ca = "components-to-apiserver.ca";
        let difference = Difference::between(&with(&[]), &with(&[(ca, Mode::Insecure)]));
        assert_eq!(
            turned(&difference),
            ["Restarts kube-controller-manager@control", "Restarts kube-scheduler@control"]
        );
    }

    #[test]
    fn hardening_turns_the_api_server_last_and_softening_first() {
        let both = ["apiserver-to-kubelet.ca", "apiserver-to-kubelet.serving-certificates"];
        let hard = with(&both.map(|name| (name, Mode::Hardened)));
        let order = |difference: &Difference, direction| -> Vec<String> {
            let phases = difference.phases(direction);
            let roles = phases.iter().flat_map(|phase| phase.roles.iter().map(|role| role.role.clone()));
            roles.collect()
        };
        let there = order(&Difference::between(&with(&[]), &hard), Direction::Hardening);
        assert_eq!(there, ["csr-approver", "kubelet", "kubelet", "kube-apiserver"]);
        let back = order(&Difference::between(&hard, &with(&[])), Direction::Softening);
        assert_eq!(back, ["kube-apiserver", "kubelet", "kubelet", "csr-approver"]);
    }

    #[test]
    fn there_and_back_is_the_same_difference_mirrored() {
        for (path, row) in rows() {
            let name = format!("{}.{}", path.name, row.name);
            let (open, shut) = (with(&[(&name, Mode::Insecure)]), with(&[(&name, Mode::Hardened)]));
            let (there, back) = (Difference::between(&open, &shut), Difference::between(&shut, &open));
            assert_eq!(there.files.len(), back.files.len(), "{name}");
            assert_eq!(there.objects.len(), back.objects.len(), "{name}");
            assert_eq!(there.roles.len(), back.roles.len(), "{name}");
        }
    }

    #[test]
    fn a_path_is_not_found_in_a_longer_one() {
        assert!(mentions("--kubeconfig=/etc/a.conf\"", Path::new("/etc/a.conf")));
        assert!(!mentions("--kubeconfig=/etc/a.conf.old", Path::new("/etc/a.conf")));
    }
}
