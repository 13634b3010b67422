//! The certificate of :10250: self-signed by default, from files, or asked for (`serverTLSBootstrap`).

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::NodeAddress;
use kube::Client;
use tracing::{error, info};

use super::super::KubeletError;
use super::super::config::{Config, Serving};
use super::request::{Ask, SERVING, certificate};
use super::rotation::{deadline, sleep_until};
use super::store::{Store, usable, write_private};
use crate::net::{Identity, ServingCert};
use crate::pki;

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

/// `kubelet.crt` and `kubelet.key`, made once and kept.
fn self_signed(config: &Config) -> Result<Identity, KubeletError> {
    let (cert, key) = (config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key"));
    if usable(&cert).is_some() && key.exists() {
        return identity(&cert, &key);
    }
    let issued = pki::self_signed_serving(&config.node_name)?;
    write_private(&key, issued.key_pem.as_bytes())?;
    write_private(&cert, issued.cert_pem.as_bytes())?;
    Ok(Identity { cert_pem: issued.cert_pem.into_bytes(), key_pem: issued.key_pem.into_bytes() })
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, KubeletError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| KubeletError::Read { path: path.to_owned(), source })
    };
    Ok(Identity { cert_pem: read(cert)?, key_pem: read(key)? })
}

/// Asks for a serving certificate for the node's addresses, waits for its approval, renews it for ever.
pub async fn request_serving(config: Config, client: Client, addresses: Vec<NodeAddress>, cert: ServingCert) {
    let store = Store::new(&config.cert_dir, "kubelet-server");
    loop {
        if let Some(facts) = store.facts() {
            sleep_until(deadline(&facts)).await;
        }
        if let Err(failure) = renew(&config, &client, &addresses, &store, &cert).await {
            error!(error = %failure, "Serving certificate request was not signed");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    }
}

async fn renew(
    config: &Config,
    client: &Client,
    addresses: &[NodeAddress],
    store: &Store,
    cert: &ServingCert,
) -> Result<(), KubeletError> {
    let ips: Vec<IpAddr> = addresses.iter().filter_map(|address| address.address.parse().ok()).collect();
    let names: Vec<&str> = addresses
        .iter()
        .filter(|address| address.address.parse::<IpAddr>().is_err())
        .map(|address| address.address.as_str())
        .collect();
    let cn = format!("system:node:{}", config.node_name);
    let (request_pem, key_pem) = pki::request(&cn, &["system:nodes"], &names, &ips)?;
    let (signer, usages) = SERVING;
    let ask = Ask { signer, usages, request_pem: &request_pem, name: String::new() };
    let cert_pem = certificate(client, &ask).await?;
    store.update(&cert_pem, &key_pem)?;
    info!("Serving certificate issued");
    cert.replace(&Identity { cert_pem: cert_pem.into_bytes(), key_pem: key_pem.into_bytes() })?;
    Ok(())
}
