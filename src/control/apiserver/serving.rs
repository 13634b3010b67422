//! The serving certificate, read again when its files change (`DynamicCertKeyPairContent`): connections made
//! from then on see the new one, and none that is open is cut.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{error, info};

use crate::net::{Identity, ServingCert};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where certificate and key are.
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    async fn read(&self) -> Option<Identity> {
        let (cert_pem, key_pem) = tokio::join!(tokio::fs::read(&self.cert), tokio::fs::read(&self.key));
        Some(Identity { cert_pem: cert_pem.ok()?, key_pem: key_pem.ok()? })
    }

    /// Follows the files, for ever. A pair that does not fit, as there is one while the second file is being
    /// written, changes nothing.
    pub async fn follow(self, serving: ServingCert) {
        let mut seen = self.read().await;
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.read().await;
            let same =
                |old: &Identity, new: &Identity| old.cert_pem == new.cert_pem && old.key_pem == new.key_pem;
            let Some(identity) = now.filter(|new| !seen.as_ref().is_some_and(|old| same(old, new))) else {
                continue;
            };
            match serving.replace(&identity) {
                Ok(()) => info!(cert = %self.cert.display(), "Loaded a new cert/key pair"),
                Err(fault) => {
                    error!(cert = %self.cert.display(), error = %fault, "Failed to load a new cert/key pair; the one before stays");
                }
            }
            seen = Some(identity);
        }
    }
}
