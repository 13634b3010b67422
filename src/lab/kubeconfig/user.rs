//! The user's own kubeconfig, edited by kind's rules.
//!
//! A file is edited as a YAML tree, so that stanzas and fields this program does not know stay as they
//! are. The first file of `$KUBECONFIG` that exists gets a new stanza; one that is already there is changed
//! where it is. A lock file beside it (client-go's `FILE.lock`) keeps other tools out meanwhile.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Entry, KubeconfigError, yaml};
use crate::lab::state::{Owner, write_whole};

/// The user's kubeconfig: `--kubeconfig` alone, else the files of `$KUBECONFIG`, else `~/.kube/config`.
pub struct UserFiles {
    files: Vec<PathBuf>,
    owner: Owner,
}

impl UserFiles {
    /// Finds them for the lab's owner.
    pub fn find(owner: &Owner, asked: Option<&Path>) -> Result<Self, KubeconfigError> {
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let files: Vec<PathBuf> = match asked {
            Some(file) => vec![file.to_owned()],
            None => std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect(),
        };
        let files = match (files.is_empty(), &owner.home) {
            (false, _) => files,
            (true, Some(home)) => vec![home.join(".kube/config")],
            (true, None) => return Err(KubeconfigError::NoHome),
        };
        Ok(Self { files, owner: owner.person() })
    }

    /// Those that are there.
    pub fn existing(&self) -> Vec<PathBuf> {
        self.files.iter().filter(|path| path.exists()).cloned().collect()
    }

    /// Adds the entry and makes it current; answers the file it is in and the context it takes over from.
    pub fn merge(&self, entry: &Entry<'_>) -> Result<(PathBuf, Option<String>), KubeconfigError> {
        let mut previous = None;
        for path in &self.files {
            let current = read(path)?["current-context"].as_str().map(str::to_owned);
            if let Some(context) = current.filter(|context| !context.is_empty()) {
                previous.get_or_insert(context);
            }
        }
        let target = self.target(entry.context)?.clone();
        self.edit(&target, |file| {
            entry.put_into(file);
            true
        })?;
        self.switch(entry.context)?;
        Ok((target, previous.filter(|context| context != entry.context)))
    }

    /// Makes a context current, in the file that says which one is (else the first that is there).
    pub fn switch(&self, context: &str) -> Result<(), KubeconfigError> {
        let mut says = None;
        for path in &self.files {
            if read(path)?["current-context"].as_str().is_some_and(|context| !context.is_empty()) {
                says = Some(path);
                break;
            }
        }
        let target = match says {
            Some(path) => path,
            None => self.target(context)?,
        };
        self.edit(&target.clone(), |file| {
            file["current-context"] = json!(context);
            true
        })
    }

    /// Gives the current context back when it is still ours; says what it is then, empty when the one
    /// before is gone too.
    pub fn give_back(&self, ours: &str, previous: Option<&str>) -> Result<Option<String>, KubeconfigError> {
        let previous = match previous {
            Some(context) if self.knows(context)? => context,
            _ => "",
        };
        let mut given = None;
        for path in self.files.iter().filter(|path| path.exists()) {
            self.edit(path, |file| {
                let is_ours = file["current-context"] == ours;
                if is_ours {
                    file["current-context"] = json!(previous);
                }
                if is_ours {
                    given = Some(previous.to_owned());
                }
                is_ours
            })?;
        }
        Ok(given)
    }

    /// Takes our stanzas out of every file.
    pub fn remove(&self, name: &str) -> Result<bool, KubeconfigError> {
        let mut removed = false;
        for path in self.files.iter().filter(|path| path.exists()) {
            self.edit(path, |file| {
                let found = take_out(file, name);
                removed |= found;
                found
            })?;
        }
        Ok(removed)
    }

    fn knows(&self, context: &str) -> Result<bool, KubeconfigError> {
        for path in &self.files {
            if has_context(&read(path)?, context) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where a stanza goes: the file that has it, else the first that exists, else the last.
    fn target(&self, context: &str) -> Result<&PathBuf, KubeconfigError> {
        for path in &self.files {
            if has_context(&read(path)?, context) {
                return Ok(path);
            }
        }
        let last = self.files.last().expect("find gives at least one file");
        Ok(self.files.iter().find(|path| path.exists()).unwrap_or(last))
    }

    /// Changes a file under its lock; `change` says whether there is something to write.
    fn edit(&self, path: &Path, change: impl FnOnce(&mut Value) -> bool) -> Result<(), KubeconfigError> {
        // A link (dotfiles kept elsewhere) stays a link: what it leads to is replaced.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let failed = |source| KubeconfigError::Write { path: real.clone(), source };
        if let Some(parent) = real.parent().filter(|parent| !parent.exists()) {
            std::fs::create_dir_all(parent).and_then(|()| self.owner.adopt(parent)).map_err(failed)?;
        }
        let _lock = FileLock::take(&real)?;
        let mut file = read(&real)?;
        if change(&mut file) {
            write_whole(&real, 0o600, yaml(&file).as_bytes(), &self.owner).map_err(failed)?;
        }
        Ok(())
    }
}

/// Takes the stanzas of that name out; says whether any was there.
fn take_out(file: &mut Value, name: &str) -> bool {
    let mut found = false;
    for list in ["clusters", "users", "contexts"] {
        if let Some(list) = file[list].as_array_mut() {
            let before = list.len();
            list.retain(|stanza| stanza["name"] != name);
            found |= list.len() != before;
        }
    }
    found
}

/// Removes a kubeconfig in which nothing is left.
pub fn remove_if_empty(path: &Path) -> Result<(), KubeconfigError> {
    let file = read(path)?;
    let empty = ["clusters", "users", "contexts"]
        .iter()
        .all(|list| file[list].as_array().is_none_or(|stanzas| stanzas.is_empty()));
    match empty.then(|| std::fs::remove_file(path)) {
        Some(Err(source)) if source.kind() != io::ErrorKind::NotFound => {
            Err(KubeconfigError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn has_context(file: &Value, context: &str) -> bool {
    file["contexts"].as_array().is_some_and(|list| list.iter().any(|stanza| stanza["name"] == context))
}

/// A kubeconfig as a tree; one that is missing or empty is an empty one.
fn read(path: &Path) -> Result<Value, KubeconfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(KubeconfigError::Read { path: path.to_owned(), source }),
    };
    if text.trim().is_empty() {
        return Ok(json!({"apiVersion": "v1", "kind": "Config", "preferences": {}}));
    }
    let parse = |source| KubeconfigError::Parse { path: path.to_owned(), source };
    let tree: Value = serde_yaml_ng::from_str(&text).map_err(|error| parse(Some(error)))?;
    if tree.is_object() { Ok(tree) } else { Err(parse(None)) }
}

/// client-go's lock: the file exists while somebody writes.
struct FileLock(PathBuf);

impl FileLock {
    fn take(file: &Path) -> Result<Self, KubeconfigError> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let path = file.with_file_name(name);
        let until = Instant::now() + Duration::from_secs(3);
        loop {
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => return Ok(Self(path)),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(KubeconfigError::Write { path, source: error });
                }
                Err(_) if Instant::now() > until => return Err(KubeconfigError::Locked { path }),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Nothing more can be done about a lock that is already gone.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        let name = "minilab-one";
        let (cluster_body, user_body) = (json!({"server": "s"}), json!({"token": "t"}));
        Entry { cluster: name, user: name, context: name, cluster_body, user_body }
    }

    fn files(paths: &[&Path]) -> UserFiles {
        UserFiles {
            files: paths.iter().map(|path| path.to_path_buf()).collect(),
            owner: Owner::current().person(),
        }
    }

    const PROD: &str = "apiVersion: v1
kind: Config
current-context: prod
contexts: [{name: prod, context: {cluster: prod, user: me, namespace: x}}]
clusters: [{name: prod, cluster: {server: 'https://prod', extensions: [{name: keep}]}}]
users: [{name: me, user: {exec: {command: login}}}]
";

    #[test]
    fn a_lab_joins_a_kubeconfig_and_leaves_it_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config");
        std::fs::write(&path, PROD).unwrap();
        let files = files(&[&path]);
        let (target, previous) = files.merge(&entry()).unwrap();
        assert_eq!((target, previous.as_deref()), (path.clone(), Some("prod")));
        assert_eq!(read(&path).unwrap()["current-context"], "minilab-one");
        assert_eq!(files.merge(&entry()).unwrap().1, None, "merged twice, it is no predecessor of itself");
        assert_eq!(files.give_back("minilab-one", Some("prod")).unwrap().as_deref(), Some("prod"));
        assert!(files.remove("minilab-one").unwrap());
        let before: Value = serde_yaml_ng::from_str(PROD).unwrap();
        assert_eq!(read(&path).unwrap(), before);
        assert!(!temp.path().join("config.lock").exists());
    }

    #[test]
    fn the_namespace_the_user_chose_stays_when_the_lab_comes_up_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config");
        let files = files(&[&path]);
        files.merge(&entry()).unwrap();
        let mut file = read(&path).unwrap();
        file["contexts"][0]["context"]["namespace"] = json!("mine");
        std::fs::write(&path, yaml(&file)).unwrap();
        files.merge(&entry()).unwrap();
        assert_eq!(read(&path).unwrap()["contexts"][0]["context"]["namespace"], "mine");
    }

    #[test]
    fn a_context_the_user_chose_meanwhile_is_not_touched() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config");
        std::fs::write(&path, PROD).unwrap();
        let files = files(&[&path]);
        files.merge(&entry()).unwrap();
        files.switch("prod").unwrap();
        assert_eq!(files.give_back("minilab-one", None).unwrap(), None);
        assert_eq!(read(&path).unwrap()["current-context"], "prod");
    }

    #[test]
    fn the_first_file_that_exists_gets_the_stanza_and_the_last_when_none_does() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (temp.path().join("one"), temp.path().join("two"));
        assert_eq!(files(&[&one, &two]).merge(&entry()).unwrap().0, two);
        std::fs::remove_file(&two).unwrap();
        std::fs::write(&one, PROD).unwrap();
        assert_eq!(files(&[&one, &two]).merge(&entry()).unwrap().0, one);
    }

    #[test]
    fn a_previous_context_that_is_gone_is_not_left_dangling() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config");
        let files = files(&[&path]);
        files.merge(&entry()).unwrap();
        assert_eq!(files.give_back("minilab-one", Some("gone")).unwrap().as_deref(), Some(""));
        assert_eq!(read(&path).unwrap()["current-context"], "");
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("config");
        std::fs::write(&path, "- a list").unwrap();
        assert!(files(&[&path]).merge(&entry()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "- a list");
    }
}
