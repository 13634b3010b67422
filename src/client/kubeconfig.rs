//! kubeconfig files: what kubeadm writes, the kubelet completes and everybody reads.
//!
//! One cluster, one user and one context are enough for a component; files with more are read by their
//! current context. Left out on purpose: exec and auth-provider plugins, proxies, impersonation.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::ClientError;
use crate::net::{Identity, Verify};

/// A kubeconfig as it is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(default = "v1", rename = "apiVersion")]
    pub api_version: String,
    #[serde(default = "config")]
    pub kind: String,
    #[serde(default)]
    pub clusters: Vec<NamedCluster>,
    #[serde(default)]
    pub contexts: Vec<NamedContext>,
    #[serde(default)]
    pub current_context: String,
    #[serde(default)]
    pub users: Vec<NamedUser>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedCluster {
    pub name: String,
    pub cluster: Cluster,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_tls_verify: bool,
    pub server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedContext {
    pub name: String,
    pub context: Context,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    pub cluster: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub user: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NamedUser {
    pub name: String,
    pub user: User,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "tokenFile")]
    pub token_file: Option<String>,
}

/// A kubeconfig's current context, resolved: where to go, whom to believe, who to be.
#[derive(Debug, Clone)]
pub struct Access {
    /// `https://HOST:PORT`, perhaps with a path below.
    pub server: String,
    pub tls_server_name: Option<String>,
    pub namespace: String,
    pub verify: Verify,
    pub identity: Option<Identity>,
    pub token: Option<String>,
    /// The files this was read from, with their times: a change means new credentials.
    files: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Kubeconfig {
    pub fn read(path: &Path) -> Result<Self, ClientError> {
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ClientError::ReadKubeconfig { path: name(), source })?;
        serde_yaml_ng::from_str(&text).map_err(|source| ClientError::ParseKubeconfig { path: name(), source })
    }

    /// A file with one context, as kubeadm and the kubelet write it.
    pub fn single(context: &str, cluster: &str, user: &str, server: Cluster, credentials: User) -> Self {
        Self {
            api_version: v1(),
            kind: config(),
            clusters: vec![NamedCluster { name: cluster.into(), cluster: server }],
            contexts: vec![NamedContext {
                name: context.into(),
                context: Context { cluster: cluster.into(), namespace: None, user: user.into() },
            }],
            current_context: context.into(),
            users: vec![NamedUser { name: user.into(), user: credentials }],
        }
    }

    /// The file's text.
    pub fn to_yaml(&self) -> String {
        serde_yaml_ng::to_string(self).expect("strings and flags always have a YAML form")
    }

    /// Resolves the current context; relative file names are relative to `path`'s directory.
    pub fn access(&self, path: &Path) -> Result<Access, ClientError> {
        let problem = |problem: String| ClientError::Kubeconfig { path: path.display().to_string(), problem };
        let current = &self.current_context;
        let context = self.contexts.iter().find(|named| named.name == *current);
        let context = &context.ok_or_else(|| problem(format!("context {current:?} does not exist")))?.context;
        let cluster = self.clusters.iter().find(|named| named.name == context.cluster);
        let cluster = &cluster.ok_or_else(|| problem(format!("no cluster {:?}", context.cluster)))?.cluster;
        let nobody = User::default();
        let user =
            self.users.iter().find(|named| named.name == context.user).map_or(&nobody, |named| &named.user);

        let mut reader = Reader { base: path.parent().unwrap_or(Path::new("")), files: Vec::new() };
        reader.note(path);
        let authority = reader.either(
            "certificate-authority-data",
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        )?;
        let verify = match (cluster.insecure_skip_tls_verify, authority) {
            (true, _) => Verify::Unverified,
            (false, Some(bundle)) => Verify::Bundle(bundle),
            // Plain HTTP shows no certificate; a webhook may be spoken to that way.
            (false, None) if cluster.server.starts_with("http://") => Verify::Unverified,
            (false, None) => return Err(problem("no certificate authority".into())),
        };
        let cert = reader.either(
            "client-certificate-data",
            &user.client_certificate_data,
            &user.client_certificate,
        )?;
        let key = reader.either("client-key-data", &user.client_key_data, &user.client_key)?;
        let identity = cert.zip(key).map(|(cert_pem, key_pem)| Identity { cert_pem, key_pem });
        let token = match (&user.token, &user.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => Some(String::from_utf8_lossy(&reader.file(file)?).trim().to_owned()),
            (None, None) => None,
        };
        Ok(Access {
            server: cluster.server.clone(),
            tls_server_name: cluster.tls_server_name.clone(),
            namespace: context.namespace.clone().unwrap_or_else(|| "default".into()),
            verify,
            identity,
            token,
            files: reader.files,
        })
    }
}

impl Access {
    pub fn read(path: &Path) -> Result<Self, ClientError> {
        Kubeconfig::read(path)?.access(path)
    }

    /// Whether a file this came from has changed since.
    pub fn is_stale(&self) -> bool {
        self.files.iter().any(|(path, time)| modified(path) != *time)
    }
}

/// Reads what a kubeconfig names, and remembers which files that were.
struct Reader<'a> {
    base: &'a Path,
    files: Vec<(PathBuf, Option<SystemTime>)>,
}

impl Reader<'_> {
    fn note(&mut self, path: &Path) {
        self.files.push((path.to_owned(), modified(path)));
    }

    fn file(&mut self, name: &str) -> Result<Vec<u8>, ClientError> {
        let path = self.base.join(name);
        self.note(&path);
        std::fs::read(&path)
            .map_err(|source| ClientError::ReadFile { path: path.display().to_string(), source })
    }

    /// The embedded data, or else the file's.
    fn either(
        &mut self,
        what: &'static str,
        data: &Option<String>,
        file: &Option<String>,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        match (data, file) {
            (Some(data), _) => {
                STANDARD.decode(data.trim()).map(Some).map_err(|_| ClientError::Base64 { what })
            }
            (None, Some(file)) => self.file(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// A rotated `…-current.pem` is a link: its target's time counts.
fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn v1() -> String {
    "v1".into()
}

fn config() -> String {
    "Config".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_with_files_is_resolved_and_noticed_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.conf");
        std::fs::write(dir.path().join("ca.crt"), "CA").unwrap();
        std::fs::write(dir.path().join("token"), "abc\n").unwrap();
        let cluster = Cluster {
            server: "https://198.51.100.1:6443".into(),
            certificate_authority: Some("ca.crt".into()),
            ..Cluster::default()
        };
        let user = User { token_file: Some("token".into()), ..User::default() };
        let file = Kubeconfig::single("default-context", "default-cluster", "default-auth", cluster, user);
        std::fs::write(&path, file.to_yaml()).unwrap();
        let access = Access::read(&path).unwrap();
        assert!(matches!(&access.verify, Verify::Bundle(bundle) if bundle == b"CA"));
        assert_eq!((access.token.as_deref(), access.is_stale()), (Some("abc"), false));
        std::fs::remove_file(dir.path().join("token")).unwrap();
        assert!(access.is_stale());
    }

    #[test]
    fn a_missing_context_is_named() {
        let mut file = Kubeconfig::single("a", "b", "c", Cluster::default(), User::default());
        file.current_context = "gone".into();
        let error = file.access(Path::new("/x/admin.conf")).unwrap_err();
        assert_eq!(error.to_string(), "kubeconfig /x/admin.conf: context \"gone\" does not exist");
    }
}
