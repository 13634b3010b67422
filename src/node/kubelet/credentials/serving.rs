//! The certificate of :10250: self-signed by default, from files, or asked for (`serverTLSBootstrap`).
//!
//! ```text
//! nothing ──► TLS alert internal_error        files change ──► served anew, no restart
//!    │  CSR kubernetes.io/kubelet-serving ◄── 70-90 % of its life, or the node's addresses changed
//!    └─► approved by somebody, signed ──► served
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::time::sleep;
use tracing::{error, info};

use super::super::KubeletError;
use super::super::config::{Config, Serving};
use super::condition::Condition;
use super::reload::on_change;
use super::request::{Ask, SERVING, certificate};
use super::rotation::{deadline, sleep_until};
use super::store::{Store, usable, write_private};
use crate::net::{Identity, ServingCert};
use crate::pki::{self, Facts};

/// After a refusal, this long until the next attempt.
const AGAIN: Duration = Duration::from_secs(10);
/// An approver that is there answers within this.
const SOON: Duration = Duration::from_secs(3);
/// How often an expired certificate is looked for.
const LOOK: Duration = Duration::from_secs(60);

/// What to serve with now. With `serverTLSBootstrap` that may be nothing yet.
pub fn serving(config: &Config) -> Result<ServingCert, KubeletError> {
    match &config.serving {
        Serving::Files { cert, key } => Ok(ServingCert::new(&identity(cert, key)?)?),
        Serving::SelfSigned => Ok(ServingCert::new(&self_signed(config)?)?),
        Serving::Bootstrap => {
            let current = Store::new(&config.cert_dir, "kubelet-server").current();
            match usable(&current) {
                Some(_) => Ok(ServingCert::new(&identity(&current, &current)?)?),
                None => Ok(ServingCert::pending()),
            }
        }
    }
}

/// Returns when there is a certificate to serve with. Whoever starts a node wants its logs and exec to work;
/// where nobody approves, that is not waited for.
pub async fn issued(cert: &ServingCert) {
    let _ = tokio::time::timeout(SOON, async {
        while cert.is_pending() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// `kubelet.crt` and `kubelet.key`, made once and kept, as upstream also past their end.
fn self_signed(config: &Config) -> Result<Identity, KubeletError> {
    let (cert, key) = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
    if cert.exists() && key.exists() {
        return identity(&cert, &key);
    }
    let issued = pki::self_signed_serving(&config.node_name)?;
    write_private(&key, issued.key_pem.as_bytes())?;
    write_private(&cert, issued.cert_pem.as_bytes())?;
    info!(cert = %cert.display(), key = %key.display(), "Using self-signed cert");
    Ok(Identity { cert_pem: issued.cert_pem.into_bytes(), key_pem: issued.key_pem.into_bytes() })
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, KubeletError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| KubeletError::Read { path: path.to_owned(), source })
    };
    Ok(Identity { cert_pem: read(cert)?, key_pem: read(key)? })
}

/// Keeps what is served up to date, as the configuration says where it comes from. `address` is the node's.
pub async fn keep_serving(
    config: Arc<Config>,
    client: Client,
    address: IpAddr,
    cert: ServingCert,
    condition: Condition,
) {
    match &config.serving {
        Serving::SelfSigned => {}
        Serving::Files { cert: path, key } => {
            if config.gates.on("ReloadKubeletServerCertificateFile") {
                let reload = || replace_from(path, key, &cert);
                on_change(vec![path.clone(), key.clone()], reload).await;
            }
        }
        Serving::Bootstrap => {
            let store = Store::new(&config.cert_dir, "kubelet-server");
            let asked = Requester {
                config: &config,
                client: &client,
                address,
                store,
                cert: &cert,
                condition: &condition,
            };
            tokio::join!(asked.renew_for_ever(), asked.withdraw_when_over());
        }
    }
}

fn replace_from(path: &Path, key: &Path, cert: &ServingCert) {
    let replaced = identity(path, key).and_then(|identity| Ok(cert.replace(&identity)?));
    match replaced {
        Ok(()) => info!(path = %path.display(), "Loaded a new serving certificate and key pair"),
        // Half written, perhaps; the next change tells.
        Err(error) => error!(%error, path = %path.display(), "The serving certificate cannot be reloaded"),
    }
}

/// Asks for the serving certificate.
struct Requester<'a> {
    config: &'a Config,
    client: &'a Client,
    address: IpAddr,
    store: Store,
    cert: &'a ServingCert,
    condition: &'a Condition,
}

impl Requester<'_> {
    async fn renew_for_ever(&self) {
        loop {
            if let Some(facts) = self.store.facts().filter(|facts| self.fits(facts)) {
                self.condition.serving_until(facts.not_after);
                let deadline = deadline(&facts);
                info!(expiration = facts.not_after, deadline, "Certificate rotation deadline determined");
                sleep_until(deadline).await;
            }
            if let Err(failure) = self.renew().await {
                self.condition.serving_failed();
                error!(error = %failure, "Serving certificate request was not signed");
                sleep(AGAIN).await;
            }
        }
    }

    /// Whether a certificate is for this node's address and name: they may have changed since.
    fn fits(&self, facts: &Facts) -> bool {
        facts.ips == [self.address] && facts.dns == [self.config.node_name.clone()]
    }

    async fn renew(&self) -> Result<(), KubeletError> {
        let name = &self.config.node_name;
        let cn = format!("system:node:{name}");
        let (request_pem, key_pem) = pki::request(&cn, &["system:nodes"], &[name], &[self.address])?;
        let (signer, usages) = SERVING;
        let ask = Ask { signer, usages, request_pem: &request_pem, name: String::new() };
        info!("Rotating certificates");
        let cert_pem = certificate(self.client, &ask).await?;
        self.store.update(&cert_pem, &key_pem)?;
        info!("Serving certificate issued");
        self.cert.replace(&Identity { cert_pem: cert_pem.into_bytes(), key_pem: key_pem.into_bytes() })?;
        Ok(())
    }

    /// An expired certificate is served to nobody: who calls then gets the alert, as while there is none.
    async fn withdraw_when_over(&self) {
        loop {
            sleep(LOOK).await;
            if self.store.facts().is_none() && !self.cert.is_pending() {
                error!("The serving certificate has expired and no other was issued");
                self.cert.withdraw();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_serving_pair_is_reloaded_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let write = |issued: &pki::Issued| {
            std::fs::write(&path, &issued.cert_pem).unwrap();
            std::fs::write(&key, &issued.key_pem).unwrap();
        };
        let (one, two) = (pki::self_signed_serving("a").unwrap(), pki::self_signed_serving("b").unwrap());
        write(&one);
        let cert = ServingCert::new(&identity(&path, &key).unwrap()).unwrap();
        let leaf = |cert: &ServingCert| Facts::from_der(&cert.leaf().unwrap()).unwrap().dns;
        write(&two);
        replace_from(&path, &key, &cert);
        assert_eq!(leaf(&cert), ["b"]);
        std::fs::write(&key, &one.key_pem).unwrap();
        replace_from(&path, &key, &cert);
        assert_eq!(leaf(&cert), ["b"], "a key of another certificate changes nothing");
    }
}
