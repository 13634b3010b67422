//! The plan's files, put into the hosts' own trees before a host starts.
//!
//! What an administrator would have written by hand; a file the learner changed since is left alone and
//! named, so that hardening with an editor lasts. Whoever is root in a host owns its tree, and may have
//! put a link there that leads out: a write therefore opens every step of a path by itself and follows no
//! link, and a read resolves links within the tree alone (openat2's `RESOLVE_IN_ROOT`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::kubeconfig::{self, KubeconfigError};
use super::material::{Material, MaterialError};
use super::plan::{Contents, Plan, PlannedFile};
use super::state::{LabDir, Owner, Standing, StateError};

/// No file a plan or a check reads is longer.
const LONGEST: u64 = 4 << 20;

/// What can go wrong with a host's files.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("the lab has no certificate or key {name:?}")]
    Material { name: String },
    #[error(transparent)]
    Keys(#[from] MaterialError),
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error("cannot open {path} of host {host}")]
    Open { host: String, path: PathBuf, source: io::Error },
    #[error("cannot write {path} of host {host}")]
    Write { host: String, path: PathBuf, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// What [`apply`] did.
#[derive(Debug, Default)]
pub struct Applied {
    pub written: usize,
    /// `host:path` of files that somebody changed; they were left as they are.
    pub edited: Vec<String>,
}

/// What a file is to contain, secrets filled in.
pub fn render(contents: &Contents, material: &Material) -> Result<String, FilesError> {
    let named = |found: Option<&str>, name: &str| {
        found.map(str::to_owned).ok_or_else(|| FilesError::Material { name: name.to_owned() })
    };
    match contents {
        Contents::Text(text) => Ok(text.clone()),
        Contents::Template(text) => {
            let text = text
                .replace("${bootstrap-token}", material.bootstrap_token())
                .replace("${static-token}", material.static_token())
                .replace("${ca-cert-hash}", &material.ca_cert_hash());
            with_public_keys(text, material)
        }
        Contents::SshKey(name) => Ok(material.ssh_key(name)?.private),
        Contents::Certificate(name) | Contents::PublicKey(name) => named(material.certificate(name), name),
        Contents::Key(name) => named(material.key(name), name),
        Contents::Kubeconfig(file) => Ok(kubeconfig::inside(file, material)?),
        Contents::OwnKubeconfig { server, trust, certificate } => {
            Ok(kubeconfig::own(server, *trust, certificate, material)?)
        }
    }
}

/// `${ssh-public:NAME}` becomes the public half of that SSH key.
fn with_public_keys(mut text: String, material: &Material) -> Result<String, FilesError> {
    const MARK: &str = "${ssh-public:";
    while let Some(at) = text.find(MARK) {
        let Some(length) = text[at..].find('}') else { break };
        let key = material.ssh_key(&text[at + MARK.len()..at + length])?;
        text.replace_range(at..=at + length, &key.public);
    }
    Ok(text)
}

/// Brings every host's files to what the plan says.
pub fn apply(lab: &LabDir, plan: &Plan, material: &Material) -> Result<Applied, FilesError> {
    let mut record = Record::read(lab);
    let digests = &mut record.digests;
    let mut applied = Applied::default();
    for host in &plan.hosts {
        let tree = Tree::of(lab, &host.name)?;
        for file in &host.files {
            let key = key(&host.name, &file.path);
            let body = render(&file.contents, material)?;
            let (now, wanted) = (tree.read(&file.path)?.map(|bytes| digest(&bytes)), digest(body.as_bytes()));
            if now.as_ref() == Some(&wanted) {
                digests.insert(key, wanted);
            } else if now.is_some() && now.as_ref() != digests.get(&key) {
                applied.edited.push(key);
            } else {
                tree.write(file, body.as_bytes())?;
                applied.written += 1;
                digests.insert(key, wanted);
            }
        }
    }
    record.save(lab)?;
    Ok(applied)
}

fn key(host: &str, path: &Path) -> String {
    format!("{host}:{}", path.display())
}

/// What the plan last wrote into each file, so that an edit is told from it.
#[derive(Debug, Default)]
pub struct Record {
    digests: BTreeMap<String, String>,
}

impl Record {
    pub fn read(lab: &LabDir) -> Record {
        let kept = std::fs::read(lab.state.join("applied.json")).ok();
        let digests = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Record { digests }
    }

    /// Notes what a file was to be; nothing when it is no more.
    pub fn note(&mut self, host: &str, path: &Path, body: Option<&str>) {
        match body {
            Some(body) => self.digests.insert(key(host, path), digest(body.as_bytes())),
            None => self.digests.remove(&key(host, path)),
        };
    }

    pub fn save(&self, lab: &LabDir) -> Result<(), StateError> {
        let digests = serde_json::to_vec(&self.digests).expect("a map of strings has a JSON form");
        lab.write(&lab.state.join("applied.json"), 0o600, &digests)
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is writable in one host, seen from the machine.
pub struct Tree {
    host: String,
    root: OwnedFd,
    owner: Owner,
}

impl Tree {
    /// Opens a host's tree, making it when it is missing.
    pub fn of(lab: &LabDir, host: &str) -> Result<Self, FilesError> {
        let path = lab.host(host);
        lab.make_inside(&path)?;
        let how = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(&path, how, Mode::empty()).map_err(|errno| FilesError::Open {
            host: host.into(),
            path,
            source: errno.into(),
        })?;
        Ok(Self { host: host.into(), root, owner: lab.owner.clone() })
    }

    /// A file's bytes, following links as the host itself would; None when there is none.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, FilesError> {
        let opened = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, ResolveFlag::RESOLVE_IN_ROOT);
        let failed = |source| FilesError::Open { host: self.host.clone(), path: path.to_owned(), source };
        let fd = match opened {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other.map_err(|errno| failed(errno.into()))?,
        };
        let mut bytes = Vec::new();
        File::from(fd).take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// The last bytes of a file that may be long; nothing where there is none.
    pub fn tail(&self, path: &Path) -> Result<Vec<u8>, FilesError> {
        let opened = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, ResolveFlag::RESOLVE_IN_ROOT);
        let failed = |source| FilesError::Open { host: self.host.clone(), path: path.to_owned(), source };
        let mut file = match opened {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
            other => File::from(other.map_err(|errno| failed(errno.into()))?),
        };
        let length = file.metadata().map_err(failed)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LONGEST))).map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Removes a file; one that is not there is as good.
    pub fn remove(&self, path: &Path) -> Result<(), FilesError> {
        let gone = || {
            let parent = self.directory(path.parent().unwrap_or(Path::new("/")))?;
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        };
        gone().map_err(|source| FilesError::Write { host: self.host.clone(), path: path.to_owned(), source })
    }

    /// Writes a planned file in one step.
    pub fn write(&self, file: &PlannedFile, bytes: &[u8]) -> Result<(), FilesError> {
        self.write_whole(file, bytes).map_err(|source| FilesError::Write {
            host: self.host.clone(),
            path: file.path.clone(),
            source,
        })
    }

    fn write_whole(&self, file: &PlannedFile, bytes: &[u8]) -> io::Result<()> {
        let parent = self.directory(file.path.parent().unwrap_or(Path::new("/")))?;
        let name = file.path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let beside = format!(".{}.new", name.to_string_lossy());
        let _ = unlinkat(&parent, beside.as_str(), UnlinkatFlags::NoRemoveDir);
        let how = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(file.mode);
        let mut new = File::from(nix::fcntl::openat(&parent, beside.as_str(), how, mode)?);
        let written = (|| {
            fchmod(&new, mode)?;
            self.adopt(&new)?;
            new.write_all(bytes)?;
            Ok(renameat(&parent, beside.as_str(), &parent, name)?)
        })();
        if written.is_err() {
            let _ = unlinkat(&parent, beside.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// Opens a directory of the tree, making what is missing on the way.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut here = self.root.try_clone()?;
        for step in path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        }) {
            let made = match mkdirat(&here, step, Mode::from_bits_truncate(0o755)) {
                Err(errno) if errno != Errno::EEXIST => return Err(errno.into()),
                made => made.is_ok(),
            };
            let how = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            here = nix::fcntl::openat(&here, step, how, Mode::empty())?;
            if made {
                self.adopt(&here)?;
            }
        }
        Ok(here)
    }

    fn open(&self, path: &Path, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        openat2(&self.root, path, how)
    }

    fn adopt(&self, file: impl AsFd) -> io::Result<()> {
        match self.owner.standing {
            Standing::Own => Ok(()),
            _ => fchown(file, Some(self.owner.uid.as_raw()), Some(self.owner.gid.as_raw())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::paths::Profile;
    use crate::lab::plan::plan;
    use crate::lab::spec::Spec;

    fn made(dir: &Path) -> (LabDir, Plan, Material) {
        let lab = LabDir::new("one", Some(dir)).unwrap();
        drop(lab.lock().unwrap());
        let material = Material::of(&lab).unwrap();
        (lab, plan(&Spec::new("one", 1, Profile::Default, 6443)), material)
    }

    #[test]
    fn a_file_the_learner_changed_stays_changed_and_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (lab, plan, material) = made(temp.path());
        let all: usize = plan.hosts.iter().map(|host| host.files.len()).sum();
        assert_eq!(apply(&lab, &plan, &material).unwrap().written, all);
        assert_eq!(apply(&lab, &plan, &material).unwrap().written, 0);
        let config = lab.host("node-1").join("var/lib/kubelet/config.yaml");
        std::fs::write(&config, "mine").unwrap();
        let again = apply(&lab, &plan, &material).unwrap();
        assert_eq!(again.edited, ["node-1:/var/lib/kubelet/config.yaml"]);
        assert_eq!(std::fs::read_to_string(config).unwrap(), "mine");
    }

    #[test]
    fn a_link_a_host_planted_leads_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let (lab, plan, material) = made(temp.path());
        let outside = temp.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::create_dir_all(lab.host("node-1").join("etc")).unwrap();
        std::os::unix::fs::symlink(&outside, lab.host("node-1").join("etc/kubernetes")).unwrap();
        assert!(apply(&lab, &plan, &material).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn the_kubelet_gets_the_labs_token_and_the_manifests_their_certificates() {
        let temp = tempfile::tempdir().unwrap();
        let (lab, plan, material) = made(temp.path());
        apply(&lab, &plan, &material).unwrap();
        let tree = Tree::of(&lab, "node-1").unwrap();
        let conf = tree.read(Path::new("/etc/kubernetes/bootstrap-kubelet.conf")).unwrap().unwrap();
        assert!(String::from_utf8(conf).unwrap().contains(material.bootstrap_token()));
        let config =
            Tree::of(&lab, "control").unwrap().read(Path::new("/etc/kubernetes/kubeadm-config.yaml"));
        assert!(!String::from_utf8(config.unwrap().unwrap()).unwrap().contains("${"));
    }
}
