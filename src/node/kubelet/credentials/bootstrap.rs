//! TLS bootstrapping: from a bootstrap kubeconfig to a client certificate and a kubeconfig of one's own.

use std::path::Path;

use kube::Client;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use tracing::info;

use super::super::KubeletError;
use super::super::config::Config;
use super::request::{Ask, CLIENT, certificate, digested_name};
use super::store::{Store, usable, write_private};
use crate::client::{self, Kubeconfig};
use crate::pki;

/// The kubelet's client: by its kubeconfig if that is usable, else after bootstrapping.
pub async fn client(config: &Config) -> Result<Client, KubeletError> {
    let store = Store::new(&config.cert_dir, "kubelet-client");
    if let Some(bootstrap) = &config.bootstrap_kubeconfig
        && !still_valid(&config.kubeconfig)
    {
        info!(
            "Kubeconfig does not exist or is not usable, using bootstrap kubeconfig to generate TLS client cert"
        );
        obtain(config, bootstrap, &store).await?;
    }
    Ok(client::from_kubeconfig(&config.kubeconfig)?)
}

/// Whether a kubeconfig exists and names a certificate that is valid now.
fn still_valid(path: &Path) -> bool {
    let Ok(file) = Kubeconfig::read(path) else { return false };
    let Some(user) = file.users.first() else { return false };
    match &user.user.client_certificate {
        Some(cert) => usable(Path::new(cert)).is_some() && file.access(path).is_ok(),
        None => file.access(path).is_ok_and(|access| access.identity.is_some()),
    }
}

async fn obtain(config: &Config, bootstrap: &Path, store: &Store) -> Result<(), KubeletError> {
    let client = client::from_kubeconfig(bootstrap)?;
    let cn = format!("system:node:{}", config.node_name);
    let key_pem = pending_key(store)?;
    let request_pem = pki::request_with_key(&key_pem, &cn, &["system:nodes"], &[], &[])?;
    let (signer, usages) = CLIENT;
    let name = digested_name(&public_key(&key_pem)?, &[&cn, "system:nodes"], usages);
    info!(csr = name, "Waiting for client certificate to be issued");
    let ask = Ask { signer, usages, request_pem: &request_pem, name };
    let cert_pem = match certificate(&client, &ask).await {
        Ok(cert_pem) => cert_pem,
        Err(refused) => {
            // The next attempt must not meet the refused request again.
            let _ = std::fs::remove_file(store.pending_key());
            return Err(refused);
        }
    };
    store.update(&cert_pem, &key_pem)?;
    write_kubeconfig(config, bootstrap, store)
}

/// The key of an attempt that was cut short, or a new one.
fn pending_key(store: &Store) -> Result<String, KubeletError> {
    if let Ok(key_pem) = std::fs::read_to_string(store.pending_key())
        && public_key(&key_pem).is_ok()
    {
        return Ok(key_pem);
    }
    let (_, key_pem) = pki::request("", &[], &[], &[])?;
    write_private(&store.pending_key(), key_pem.as_bytes())?;
    Ok(key_pem)
}

fn public_key(key_pem: &str) -> Result<Vec<u8>, KubeletError> {
    let key = pki::private_key(key_pem.as_bytes())?;
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_der(), &SystemRandom::new());
    Ok(pair.map_err(|_| pki::PkiError::Key)?.public_key().as_ref().to_vec())
}

/// `kubelet.conf` as upstream writes it: the bootstrap file's cluster, and the link for certificate and key.
fn write_kubeconfig(config: &Config, bootstrap: &Path, store: &Store) -> Result<(), KubeletError> {
    let file = Kubeconfig::read(bootstrap)?;
    let context = file.contexts.iter().find(|context| context.name == file.current_context);
    let cluster =
        file.clusters.into_iter().find(|cluster| context.is_some_and(|c| c.context.cluster == cluster.name));
    let cluster = cluster.map(|cluster| cluster.cluster).unwrap_or_default();
    let current = Some(store.current().display().to_string());
    let user =
        client::User { client_certificate: current.clone(), client_key: current, ..Default::default() };
    let own = Kubeconfig::single("default-context", "default-cluster", "default-auth", cluster, user);
    write_private(&config.kubeconfig, own.to_yaml().as_bytes())
}
