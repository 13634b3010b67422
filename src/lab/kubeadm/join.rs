//! `kubeadm join --config`: a node finds its cluster over a network it has no reason to trust
//! (`cmd/kubeadm/app/discovery/token`, `.../phases/kubelet`).
//!
//! ```text
//! cluster-info, from anybody ─ signed with the token? ─ CA pinned? ─ again over verified TLS ─ ca.crt,
//! bootstrap-kubelet.conf, config.yaml ─▶ the kubelet's TLS bootstrap
//! ```
//! Whoever knows the token can forge the signature, so only the pinned digest stops a man in the middle;
//! without it the join says so, loudly, and goes on, as kubeadm does. Left out: control-plane joins,
//! discovery by file, preflight checks of the machine.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, Client};
use ring::hmac;
use serde::Deserialize;
use serde_json::json;
use tracing::{info, warn};

use crate::client::{self, Backoff, Kubeconfig};
use crate::pki;

const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// How often the API server is asked before the join gives up (kubeadm waits five minutes).
const ATTEMPTS: usize = 60;

/// The part of kubeadm's JoinConfiguration that this reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinConfiguration {
    #[serde(default = "ca_path")]
    ca_cert_path: PathBuf,
    discovery: Discovery,
    node_registration: Registration,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovery {
    bootstrap_token: BootstrapToken,
    tls_bootstrap_token: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BootstrapToken {
    api_server_endpoint: String,
    token: String,
    #[serde(default)]
    ca_cert_hashes: Vec<String>,
    #[serde(default, rename = "unsafeSkipCAVerification")]
    unsafe_skip_ca_verification: bool,
}

#[derive(Debug, Deserialize)]
struct Registration {
    name: String,
}

fn ca_path() -> PathBuf {
    "/etc/kubernetes/pki/ca.crt".into()
}

/// Joins, unless the node did so before.
pub async fn join(config: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(config).with_context(|| format!("read {}", config.display()))?;
    let config: JoinConfiguration = serde_yaml_ng::from_str(&text).context("read the join configuration")?;
    if Path::new(KUBELET_CONF).exists() {
        info!(node = config.node_registration.name, "This node has joined already");
        return Ok(());
    }
    let token = &config.discovery.bootstrap_token;
    ensure!(
        token.unsafe_skip_ca_verification || !token.ca_cert_hashes.is_empty(),
        "discovery.bootstrapToken: Invalid value: \"\": using token-based discovery without caCertHashes can be unsafe. \
         Set unsafeSkipCAVerification as true in your kubeadm config file or pass \
         --discovery-token-unsafe-skip-ca-verification flag to continue"
    );
    let cluster = discover(token).await?;
    let client = authenticated(&cluster, &config.discovery.tls_bootstrap_token)?;
    not_taken(&client, &config.node_registration.name).await?;
    let kubelet = kubelet_config(&client).await?;
    write(&config.ca_cert_path, 0o644, cluster.ca_pem.as_bytes())?;
    write(Path::new(KUBELET_CONFIG), 0o644, kubelet.as_bytes())?;
    let bootstrap = cluster.kubeconfig(&config.discovery.tls_bootstrap_token);
    write(Path::new(BOOTSTRAP), 0o600, bootstrap.to_yaml().as_bytes())?;
    info!("[kubelet-start] Writing kubelet configuration to file {KUBELET_CONFIG:?}");
    info!(
        "This node has joined the cluster: Certificate signing request will be sent to apiserver by the kubelet"
    );
    Ok(())
}

/// What a node needs to know of its cluster.
#[derive(Debug, PartialEq)]
struct Cluster {
    server: String,
    ca_pem: String,
}

impl Cluster {
    /// Reads the kubeconfig inside cluster-info.
    fn read(text: &str) -> anyhow::Result<Self> {
        // kubeadm writes null for the lists that are empty.
        let file: serde_json::Value =
            serde_yaml_ng::from_str(text).context("read the kubeconfig in cluster-info")?;
        let cluster = &file["clusters"][0]["cluster"];
        let server = cluster["server"].as_str().context("cluster-info names no server")?;
        let ca = cluster["certificate-authority-data"].as_str();
        let ca = ca.context("cluster-info has no certificate authority")?;
        let ca = BASE64_STANDARD.decode(ca).context("decode the certificate authority")?;
        Ok(Self { server: server.to_owned(), ca_pem: String::from_utf8(ca)? })
    }

    fn kubeconfig(&self, token: &str) -> Kubeconfig {
        let cluster = client::Cluster {
            server: self.server.clone(),
            certificate_authority_data: Some(BASE64_STANDARD.encode(&self.ca_pem)),
            ..Default::default()
        };
        let user = client::User { token: Some(token.to_owned()), ..Default::default() };
        let name = "tls-bootstrap-token-user";
        Kubeconfig::single(&format!("{name}@kubernetes"), "kubernetes", name, cluster, user)
    }
}

async fn discover(token: &BootstrapToken) -> anyhow::Result<Cluster> {
    let endpoint = format!("https://{}", token.api_server_endpoint);
    info!(
        "[discovery] Created cluster-info discovery client, requesting info from {:?}",
        token.api_server_endpoint
    );
    let info = cluster_info(&anybody(&endpoint)?).await?;
    let text = verified(&info, &token.token)?;
    let cluster = Cluster::read(text)?;
    if token.ca_cert_hashes.is_empty() {
        warn!(
            "[discovery] WARNING: no CA pinned. Whoever answers at {endpoint} and knows the token is believed: the \
             cluster CA could be an attacker's (--discovery-token-unsafe-skip-ca-verification)"
        );
        info!(
            "[discovery] Cluster info signature and contents are valid and no TLS pinning was specified, will use API \
             Server {:?}",
            token.api_server_endpoint
        );
        return Ok(cluster);
    }
    let own = pki::public_key_pin(cluster.ca_pem.as_bytes())?;
    if !token.ca_cert_hashes.contains(&own) {
        bail!(
            "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys {own:?} are pinned"
        );
    }
    info!(
        "[discovery] Requesting info from {:?} again to validate TLS against the pinned public key",
        token.api_server_endpoint
    );
    let again = cluster_info(&believing(&endpoint, &cluster.ca_pem)?).await?;
    ensure!(
        again.get("kubeconfig") == info.get("kubeconfig"),
        "the second kubeconfig from the cluster-info ConfigMap (using validated TLS) was different from the first"
    );
    info!(
        "[discovery] Cluster info signature and contents are valid and TLS certificate validates against pinned roots, \
         will use API Server {:?}",
        token.api_server_endpoint
    );
    Ok(cluster)
}

/// A client that believes whoever answers: all that is read by it is checked afterwards.
fn anybody(server: &str) -> anyhow::Result<Client> {
    let cluster =
        client::Cluster { server: server.into(), insecure_skip_tls_verify: true, ..Default::default() };
    nobody(cluster)
}

fn believing(server: &str, ca_pem: &str) -> anyhow::Result<Client> {
    let data = Some(BASE64_STANDARD.encode(ca_pem));
    nobody(client::Cluster { server: server.into(), certificate_authority_data: data, ..Default::default() })
}

fn nobody(cluster: client::Cluster) -> anyhow::Result<Client> {
    let file = Kubeconfig::single("join", "kubernetes", "nobody", cluster, client::User::default());
    Ok(client::from_parts(file.access(Path::new(""))?)?)
}

fn authenticated(cluster: &Cluster, token: &str) -> anyhow::Result<Client> {
    Ok(client::from_parts(cluster.kubeconfig(token).access(Path::new(""))?)?)
}

/// Reads cluster-info, patiently; x509 complaints are final.
async fn cluster_info(client: &Client) -> anyhow::Result<BTreeMap<String, String>> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let mut backoff = Backoff::new();
    for _ in 0..ATTEMPTS {
        match api.get("cluster-info").await {
            Ok(found) => return Ok(found.data.unwrap_or_default()),
            Err(kube::Error::Api(status)) if status.code == 403 || status.code == 401 => {
                bail!("cannot read cluster-info anonymously: {}", status.message)
            }
            Err(error) => {
                let text = crate::net::go_text(&error);
                ensure!(!text.contains("x509"), "failed to request the cluster-info ConfigMap: {text}");
                info!("[discovery] Failed to request cluster-info, will try again: {text}");
                backoff.wait().await;
            }
        }
    }
    bail!("abort connecting to API servers after {ATTEMPTS} attempts")
}

/// The kubeconfig in cluster-info if the token's holder signed it.
fn verified<'a>(info: &'a BTreeMap<String, String>, token: &str) -> anyhow::Result<&'a str> {
    let (id, secret) = token.split_once('.').context("the bootstrap token is not of the form ID.SECRET")?;
    let text = info.get("kubeconfig").context("there is no kubeconfig in the cluster-info ConfigMap")?;
    let Some(signature) = info.get(&format!("jws-kubeconfig-{id}")) else {
        bail!(
            "token id {id:?} is invalid for this cluster or it has expired. Use \"kubeadm token create\" on the \
             control-plane node to create a new valid token"
        );
    };
    ensure!(
        is_signed(text, signature, secret),
        "failed to verify JWS signature of received cluster info object, can't trust this API Server"
    );
    Ok(text)
}

/// Checks a detached HS256 signature, `header..tag`.
fn is_signed(payload: &str, signature: &str, secret: &str) -> bool {
    let Some((header, tag)) = signature.split_once("..") else { return false };
    let algorithm = BASE64_URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .is_some_and(|header| header["alg"] == json!("HS256"));
    let Ok(tag) = BASE64_URL_SAFE_NO_PAD.decode(tag) else { return false };
    let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    algorithm && hmac::verify(&key, signed.as_bytes(), &tag).is_ok()
}

/// A node of this name must not be there.
async fn not_taken(client: &Client, name: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.get_opt(name).await.context("check whether a node of this name exists")? {
        None => Ok(()),
        Some(node) => {
            let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
            let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
            // One that is not Ready is this node's own former life.
            ensure!(!ready, "a Node with name {name:?} and status \"Ready\" already exists in the cluster");
            Ok(())
        }
    }
}

/// The KubeletConfiguration the cluster keeps for its nodes.
async fn kubelet_config(client: &Client) -> anyhow::Result<String> {
    info!(
        "[kubelet-start] Reading configuration from the \"kubelet-config\" ConfigMap in namespace \"kube-system\"..."
    );
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let found = maps.get("kubelet-config").await.context("get the kubelet-config ConfigMap")?;
    found.data.unwrap_or_default().remove("kubelet").context("the kubelet-config ConfigMap has no kubelet")
}

fn write(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    let mut how = std::fs::OpenOptions::new();
    how.write(true).create(true).truncate(true).mode(mode);
    how.open(path).and_then(|mut file| file.write_all(bytes)).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(secret: &str) -> BTreeMap<String, String> {
        let text = "apiVersion: v1\nkind: Config\n";
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"abcdef"}"#);
        let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(text));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
        let signature = format!("{header}..{}", BASE64_URL_SAFE_NO_PAD.encode(tag));
        [("kubeconfig".to_owned(), text.to_owned()), ("jws-kubeconfig-abcdef".to_owned(), signature)].into()
    }

    #[test]
    fn kubeadms_cluster_info_is_read() {
        let text = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: Q0E=\n    server: https://198.51.100.1:6443\n  name: ''\ncontexts: null\ncurrent-context: ''\nkind: Config\nusers: null\n";
        let cluster = Cluster::read(text).unwrap();
        assert_eq!((cluster.server.as_str(), cluster.ca_pem.as_str()), ("https://198.51.100.1:6443", "CA"));
    }

    #[test]
    fn only_who_knows_the_token_can_have_signed_cluster_info() {
        let good = info("0123456789abcdef");
        assert!(verified(&good, "abcdef.0123456789abcdef").is_ok());
        let said =
            |info: &BTreeMap<String, String>, token: &str| verified(info, token).unwrap_err().to_string();
        assert!(said(&good, "zzzzzz.0123456789abcdef").starts_with("token id \"zzzzzz\" is invalid"));
        assert!(
            said(&info("another"), "abcdef.0123456789abcdef").starts_with("failed to verify JWS signature")
        );
        let mut changed = good.clone();
        changed.insert("kubeconfig".into(), "apiVersion: v1\nkind: Evil\n".into());
        assert!(said(&changed, "abcdef.0123456789abcdef").starts_with("failed to verify JWS signature"));
        let mut unsigned = good;
        unsigned.insert("jws-kubeconfig-abcdef".into(), "e30..".into());
        assert!(verified(&unsigned, "abcdef.0123456789abcdef").is_err());
    }
}
