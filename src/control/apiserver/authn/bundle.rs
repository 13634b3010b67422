//! A bundle of authorities that is read again when its file changes (`DynamicFileCAContent`): who comes with
//! a certificate of a new authority is let in without a restart, and who comes with one of an authority that
//! was taken out is not.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::CertificateDer;
use tracing::{error, info};

use super::flags::AuthnError;
use crate::control::apiserver::watched::Watched;
use crate::pki::{ClientRoots, PkiError, Subject};

/// The authorities of one file.
pub struct Bundle(RwLock<Arc<ClientRoots>>);

impl Bundle {
    pub fn new(roots: ClientRoots) -> Self {
        Self(RwLock::new(Arc::new(roots)))
    }

    /// Reads a file, and follows it for as long as somebody uses it. Needs the async runtime.
    pub(super) fn follow(name: &'static str, path: &Path) -> Result<Arc<Self>, AuthnError> {
        // Before it is read: what is written from now on is noticed.
        let mut file = Watched::new(path.to_owned());
        let bundle = Arc::new(Self::new(super::flags::roots(path)?));
        let (user, path) = (Arc::downgrade(&bundle), path.display().to_string());
        tokio::spawn(async move {
            while let Some(text) = file.changed(&user).await {
                let Some(bundle) = user.upgrade() else { return };
                match ClientRoots::from_pem(text.as_bytes()) {
                    Ok(roots) => {
                        *bundle.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roots);
                        info!(name, path, "Loaded a new CA Bundle and Verifier");
                    }
                    Err(fault) => {
                        error!(name, path, error = %fault, "Failed to load a new CA Bundle; the one before stays");
                    }
                }
            }
        });
        Ok(bundle)
    }

    pub(super) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<Arc<Subject>, PkiError> {
        let roots = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        roots.verify(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, LeafSpec, certificates};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_changed_bundle_lets_in_others_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let (first, second) = (Authority::new("one").unwrap(), Authority::new("two").unwrap());
        std::fs::write(&path, first.cert_pem()).unwrap();
        let bundle = Bundle::follow("client-ca", &path).unwrap();
        let chain = |ca: &Authority| {
            certificates(ca.issue(&LeafSpec::client("me", &[])).unwrap().cert_pem.as_bytes()).unwrap()
        };
        let (of_first, of_second) = (chain(&first), chain(&second));
        assert!(bundle.verify(&of_first).is_ok() && bundle.verify(&of_second).is_err());
        std::fs::write(&path, "nonsense").unwrap();
        std::fs::write(&path, second.cert_pem()).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while bundle.verify(&of_second).is_err() && std::time::Instant::now() < deadline {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(bundle.verify(&of_second).is_ok() && bundle.verify(&of_first).is_err());
    }
}
