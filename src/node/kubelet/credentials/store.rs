//! Certificate files with a `-current.pem` link, as client-go's `FileStore` keeps them.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Zoned;

use super::super::KubeletError;
use crate::pki::Facts;

/// A directory of `PREFIX-DATE.pem` files and the link to the one in use.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    prefix: &'static str,
}

impl Store {
    /// `kubelet-client` or `kubelet-server`.
    pub fn new(dir: &Path, prefix: &'static str) -> Self {
        Self { dir: dir.to_owned(), prefix }
    }

    /// The link that kubeconfigs name.
    pub fn current(&self) -> PathBuf {
        self.dir.join(format!("{}-current.pem", self.prefix))
    }

    /// The certificate in use, if there is one that is still valid.
    pub fn facts(&self) -> Option<Facts> {
        usable(&self.current())
    }

    /// A key kept between attempts, so that a retry meets its own earlier request.
    pub fn pending_key(&self) -> PathBuf {
        self.dir.join(format!("{}.key.tmp", self.prefix))
    }

    /// Writes certificate and key into one new file and turns the link to it in one step.
    pub fn update(&self, cert_pem: &str, key_pem: &str) -> Result<PathBuf, KubeletError> {
        let path =
            self.dir.join(format!("{}-{}.pem", self.prefix, Zoned::now().strftime("%Y-%m-%d-%H-%M-%S")));
        let mut text = cert_pem.to_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(key_pem);
        write_private(&path, text.as_bytes())?;
        let fresh = self.dir.join(format!("{}-current.pem.new", self.prefix));
        // Left by a kubelet that died between the two steps.
        let _ = std::fs::remove_file(&fresh);
        let failed = |source| KubeletError::Write { path: fresh.clone(), source };
        std::os::unix::fs::symlink(&path, &fresh).map_err(failed)?;
        std::fs::rename(&fresh, self.current()).map_err(failed)?;
        let _ = std::fs::remove_file(self.pending_key());
        Ok(path)
    }
}

/// The first certificate of a file, if it can be used now.
pub fn usable(path: &Path) -> Option<Facts> {
    let facts = Facts::from_pem(&std::fs::read(path).ok()?).ok()?;
    (u64::try_from(jiff::Timestamp::now().as_second()).ok()? < facts.not_after).then_some(facts)
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, contents: &[u8]) -> Result<(), KubeletError> {
    let failed = |source| KubeletError::Write { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(contents).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_follows_the_newest_certificate_and_an_expired_one_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "kubelet-client");
        assert!(store.facts().is_none());
        let ca = crate::pki::Authority::new("kubernetes").unwrap();
        let leaf = ca.issue(&crate::pki::LeafSpec::client("system:node:node-1", &["system:nodes"])).unwrap();
        let path = store.update(&leaf.cert_pem, &leaf.key_pem).unwrap();
        assert_eq!(std::fs::read_link(store.current()).unwrap(), path);
        assert_eq!(store.facts().unwrap().cn, "system:node:node-1");
    }
}
