//! Where a lab lives on the machine, and who may touch it.
//!
//! `$XDG_STATE_HOME/minilab/NAME/` (0700) keeps what outlives a run; the one socket of a lab is in a file
//! system only its supervisor has mounted, so that none is ever left behind. Under sudo everything belongs
//! to, and lies with, the invoking user; what root makes for itself belongs to ids that nobody else has, so
//! that a lab's root is never the machine's. Two locks, both flock and so gone with their holder: one
//! on the directory for whoever changes the lab, one on `keeper.lock` for as long as the lab runs.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid};

use super::idmap;

/// What follows the keeper's pid in `keeper.lock` once its lab is committed.
const COMMITTED: &str = "\ncommitted\n";

/// What can go wrong with a lab's directories.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{name:?} is not a lab name: use up to 32 of a-z, 0-9 and '-', a letter first, no '-' last")]
    Name { name: String },
    #[error("cannot tell where this user's home is: set HOME or XDG_STATE_HOME")]
    NoHome,
    #[error("cannot make {path}")]
    Make { path: PathBuf, source: io::Error },
    #[error("{path} belongs to another user")]
    Foreign { path: PathBuf },
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The user a lab belongs to: under sudo, who called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub uid: Uid,
    pub gid: Gid,
    pub home: Option<PathBuf>,
    pub standing: Standing,
}

/// How this process comes to act for a lab's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is its user's own.
    Own,
    /// Root acts for who called it by sudo.
    Sudo,
    /// Root acts for ids that only labs use.
    Apart,
}

/// A lab's places. Making the value makes nothing on disk.
#[derive(Debug, Clone)]
pub struct LabDir {
    pub name: String,
    pub owner: Owner,
    /// Everything of it.
    pub state: PathBuf,
}

/// Held while a command changes the lab, or, by the keeper, while the lab runs.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl AsFd for Lock {
    /// A copy of this descriptor holds the lock too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Lock {
    /// For the keeper: says that the lab outlives the `up` that started it.
    pub fn commit(&mut self) -> io::Result<()> {
        self.0.write_all(COMMITTED.as_bytes())
    }
}

impl Owner {
    /// The user of this process, or of the sudo around it.
    pub fn current() -> Self {
        let through = |variable: &str| std::env::var(variable).ok()?.parse::<u32>().ok();
        let me = Uid::effective();
        if me.is_root()
            && let (Some(uid), Some(gid)) = (through("SUDO_UID"), through("SUDO_GID"))
            && uid != 0
        {
            let home = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.dir);
            return Self { uid: uid.into(), gid: gid.into(), home, standing: Standing::Sudo };
        }
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        if me.is_root() && idmap::can_be_apart() {
            let (uid, gid) = (idmap::APART.into(), idmap::APART.into());
            return Self { uid, gid, home, standing: Standing::Apart };
        }
        Self { uid: me, gid: Gid::effective(), home, standing: Standing::Own }
    }

    /// Whom files outside the lab's directory belong to, for example a kubeconfig.
    pub fn person(&self) -> Self {
        match self.standing {
            Standing::Apart => Self {
                uid: Uid::from_raw(0),
                gid: Gid::from_raw(0),
                home: self.home.clone(),
                standing: Standing::Own,
            },
            Standing::Own | Standing::Sudo => self.clone(),
        }
    }

    /// Gives a path this process made as root to the owner.
    pub fn adopt(&self, path: &Path) -> io::Result<()> {
        match self.standing {
            Standing::Own => Ok(()),
            _ => std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())),
        }
    }
}

/// Every lab's parent: `--state-dir`, else XDG's state directory of the owner.
pub fn base(owner: &Owner, asked: Option<&Path>) -> Result<PathBuf, StateError> {
    if let Some(dir) = asked {
        return std::path::absolute(dir).map_err(|source| StateError::Read { path: dir.to_owned(), source });
    }
    // Root's own XDG variables say nothing about the user behind sudo.
    let xdg = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    match (xdg, &owner.home, owner.standing == Standing::Sudo) {
        (Some(dir), _, false) => Ok(dir.join("minilab")),
        (_, Some(home), _) => Ok(home.join(".local/state/minilab")),
        _ => Err(StateError::NoHome),
    }
}

/// Whether a word can name a lab: it becomes a directory, a context and a host name's part.
pub fn valid_name(name: &str) -> Result<(), StateError> {
    let fits = (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits { Ok(()) } else { Err(StateError::Name { name: name.to_owned() }) }
}

impl LabDir {
    /// The places of lab `name`.
    pub fn new(name: &str, state_dir: Option<&Path>) -> Result<Self, StateError> {
        valid_name(name)?;
        let owner = Owner::current();
        let state = base(&owner, state_dir)?.join(name);
        // One that root made when labs had no ids of their own stays root's.
        let owner = match std::fs::metadata(&state) {
            Ok(meta) if meta.uid() == 0 => owner.person(),
            _ => owner,
        };
        Ok(Self { name: name.to_owned(), owner, state })
    }

    /// Whether the lab was ever made.
    pub fn exists(&self) -> bool {
        self.state.join("lab.yaml").exists()
    }

    /// The other labs beside this one.
    pub fn others(&self) -> Vec<String> {
        let beside = self.state.parent().and_then(|parent| std::fs::read_dir(parent).ok());
        let mut names: Vec<String> = beside
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path() != self.state && entry.path().join("lab.yaml").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// The user's kubeconfig for this lab.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// What the supervisor reads.
    pub fn plan_file(&self) -> PathBuf {
        self.state.join("plan.json")
    }

    /// What is writable in a host, laid out as in it (`hosts/control/etc/kubernetes/…`).
    pub fn host(&self, host: &str) -> PathBuf {
        self.state.join("hosts").join(host)
    }

    /// The log of a role: `logs/kubelet@node-1.log`, and `logs/kube-apiserver.log` in control.
    pub fn log(&self, role: &str, host: &str) -> PathBuf {
        let file = if host == "control" { format!("{role}.log") } else { format!("{role}@{host}.log") };
        self.state.join("logs").join(file)
    }

    /// Waits until nobody else changes this lab; makes the directory when it is missing.
    pub fn lock(&self) -> Result<Lock, StateError> {
        loop {
            make_private(&self.state, &self.owner)?;
            let failed = |source| StateError::Lock { path: self.state.clone(), source };
            let directory = match File::open(&self.state) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(failed)?,
            };
            let lock =
                Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))?;
            // `delete` may have removed the directory while we waited for it.
            let held = lock.metadata().map_err(failed)?.ino();
            if std::fs::metadata(&self.state).is_ok_and(|now| now.ino() == held) {
                return Ok(Lock(lock));
            }
        }
    }

    /// The lock of [`Self::lock`] if nobody has it now.
    pub fn try_lock(&self) -> Option<Lock> {
        let directory = File::open(&self.state).ok()?;
        Flock::lock(directory, FlockArg::LockExclusiveNonblock).ok().map(Lock)
    }

    /// For the keeper: says that the lab runs, for as long as the lock is held. None when it already does.
    pub fn hold(&self) -> Result<Option<Lock>, StateError> {
        let path = self.state.join("keeper.lock");
        let failed = |source| StateError::Lock { path: path.clone(), source };
        let mut how = OpenOptions::new();
        let file = how.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        self.owner.adopt(&path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let said =
                    lock.set_len(0).and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
                said.map_err(failed)?;
                Ok(Some(Lock(lock)))
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }

    /// Whether a keeper holds this lab now.
    pub fn is_running(&self) -> bool {
        let Ok(file) = File::open(self.state.join("keeper.lock")) else { return false };
        matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, nix::errno::Errno::EWOULDBLOCK)))
    }

    /// Whether the lab that runs now outlives the `up` that started it.
    pub fn is_committed(&self) -> bool {
        std::fs::read_to_string(self.state.join("keeper.lock")).is_ok_and(|said| said.ends_with(COMMITTED))
    }

    /// The pid of the keeper that holds this lab now.
    pub fn keeper(&self) -> Option<i32> {
        let said = std::fs::read_to_string(self.state.join("keeper.lock")).ok()?;
        self.is_running().then_some(said.lines().next()?.parse().ok()?)
    }

    /// Writes a file of the lab in one step: readers see the old or the new, never half of it.
    pub fn write(&self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), StateError> {
        if let Some(parent) = path.parent() {
            self.make_inside(parent)?;
        }
        write_whole(path, mode, bytes, &self.owner)
            .map_err(|source| StateError::Write { path: path.to_owned(), source })
    }

    /// Makes a directory below the lab's, owned by the owner all the way.
    pub fn make_inside(&self, dir: &Path) -> Result<(), StateError> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.make_inside(parent)?;
        }
        let failed = |source| StateError::Make { path: dir.to_owned(), source };
        match DirBuilder::new().mode(0o755).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => self.owner.adopt(dir).map_err(failed),
        }
    }
}

/// Writes beside and renames over.
pub fn write_whole(path: &Path, mode: u32, bytes: &[u8], owner: &Owner) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        owner.adopt(&beside)?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Makes a directory (and what is above it) that only the owner may enter.
fn make_private(dir: &Path, owner: &Owner) -> Result<(), StateError> {
    let failed = |source| StateError::Make { path: dir.to_owned(), source };
    if let Some(parent) = dir.parent().filter(|parent| !parent.exists()) {
        make_private(parent, &owner.person())?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => owner.adopt(dir).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let meta = std::fs::symlink_metadata(dir).map_err(failed)?;
            let theirs = meta.uid() != owner.uid.as_raw() && meta.uid() != Uid::effective().as_raw();
            if theirs || !meta.is_dir() {
                return Err(StateError::Foreign { path: dir.to_owned() });
            }
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab_in(dir: &Path) -> LabDir {
        LabDir::new("one", Some(dir)).unwrap()
    }

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", "..", "a/b", "A", "1a", "a-", "a b", &"a".repeat(33)] {
            assert!(valid_name(bad).is_err(), "{bad:?}");
        }
        for good in ["minilab", "a", "lab-2"] {
            assert!(valid_name(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn the_directory_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let lab = lab_in(temp.path());
        let _lock = lab.lock().unwrap();
        assert_eq!(std::fs::metadata(&lab.state).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_lab_runs_while_its_keeper_holds_it_and_no_second_keeper_may() {
        let temp = tempfile::tempdir().unwrap();
        let lab = lab_in(temp.path());
        let _lock = lab.lock().unwrap();
        assert!(!lab.is_running());
        let mut held = lab.hold().unwrap();
        assert!(held.is_some() && lab.is_running() && !lab.is_committed());
        held.as_mut().unwrap().commit().unwrap();
        assert!(lab.is_committed());
        assert_eq!(lab.keeper(), Some(std::process::id() as i32));
        assert!(lab.hold().unwrap().is_none());
        drop(held);
        assert!(!lab.is_running());
    }
}
