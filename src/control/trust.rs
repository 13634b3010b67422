//! Whom the port of kube-controller-manager and kube-scheduler believes: authorities from files or, where the
//! flags name none, from what the API server publishes of its own
//! (`DelegatingAuthenticationOptions`, `kube-system/extension-apiserver-authentication`). Both are followed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tracing::{info, warn};

use crate::client::delegated::Authentication;
use crate::client::{self, FrontProxy, RemoteHeaders};
use crate::net::go_text;
use crate::pki::{ClientRoots, PkiError};

const PUBLISHED: &str = "extension-apiserver-authentication";
/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The flags that name authorities.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustOptions {
    /// Client certificates signed by this authority are accepted on the HTTPS port.
    #[arg(long, value_name = "PATH")]
    pub client_ca_file: Option<PathBuf>,
    /// Whoever has a certificate of this authority may name users in headers.
    #[arg(long, value_name = "PATH")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Do not look for authorities in the cluster.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", action = clap::ArgAction::Set)]
    pub authentication_skip_lookup: bool,
}

impl TrustOptions {
    /// What the files say.
    ///
    /// # Errors
    /// A file that cannot be read or used, with its path.
    pub fn apply(&self, to: &Authentication) -> Result<(), (PathBuf, TrustError)> {
        let read = |path: &PathBuf| {
            let text = std::fs::read(path).map_err(|error| (path.clone(), TrustError::Read(error)))?;
            ClientRoots::from_pem(&text).map_err(|error| (path.clone(), TrustError::Use(error)))
        };
        if let Some(path) = &self.client_ca_file {
            to.replace_roots(read(path)?);
        }
        if let Some(path) = &self.requestheader_client_ca_file {
            to.replace_proxy(self.proxy(read(path)?));
        }
        Ok(())
    }

    fn proxy(&self, roots: ClientRoots) -> FrontProxy {
        let allowed = self.requestheader_allowed_names.iter().filter(|name| !name.is_empty());
        FrontProxy {
            roots,
            allowed: allowed.cloned().collect(),
            headers: RemoteHeaders {
                user: self.requestheader_username_headers.clone(),
                uid: self.requestheader_uid_headers.clone(),
                group: self.requestheader_group_headers.clone(),
                extra: self.requestheader_extra_headers_prefix.clone(),
            },
        }
    }

    /// Follows files and, with a client and where files are not named, the cluster. For ever.
    pub async fn follow(self, to: Arc<Authentication>, cluster: Option<Client>) {
        let all_named = self.client_ca_file.is_some() && self.requestheader_client_ca_file.is_some();
        let cluster = cluster.filter(|_| !all_named && !self.authentication_skip_lookup);
        tokio::join!(self.follow_files(&to), async {
            if let Some(cluster) = cluster {
                self.follow_cluster(&to, cluster).await;
            }
        });
    }

    async fn follow_files(&self, to: &Authentication) {
        let paths = [&self.client_ca_file, &self.requestheader_client_ca_file];
        let contents = || paths.map(|path| path.as_ref().and_then(|path| std::fs::read(path).ok()));
        let mut seen = contents();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = contents();
            if now == seen {
                continue;
            }
            seen = now;
            match self.apply(to) {
                Ok(()) => info!("Loaded a new CA Bundle and Verifier"),
                Err((path, error)) => {
                    warn!(path = %path.display(), %error, "Failed to load a new CA Bundle; the one before stays");
                }
            }
        }
    }

    async fn follow_cluster(&self, to: &Authentication, cluster: Client) {
        let one = watcher::Config::default().fields(&format!("metadata.name={PUBLISHED}"));
        let published = watcher(Api::<ConfigMap>::namespaced(cluster, "kube-system"), one);
        let mut published = std::pin::pin!(published.backoff(client::Backoff::default()).applied_objects());
        while let Some(found) = published.next().await {
            match found {
                Ok(found) => self.take(to, &found),
                Err(error) => warn!(
                    error = %go_text(&error),
                    "unable to get configmap/extension-apiserver-authentication in kube-system"
                ),
            }
        }
    }

    fn take(&self, to: &Authentication, published: &ConfigMap) {
        let data = |key: &str| published.data.as_ref().and_then(|data| data.get(key));
        let list = |key: &str| -> Vec<String> {
            data(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
        };
        let roots = |key: &str| {
            let roots = ClientRoots::from_pem(data(key)?.as_bytes());
            roots.map_err(|error| warn!(%error, key, "Failed to load a new CA Bundle")).ok()
        };
        if let (None, Some(roots)) = (&self.client_ca_file, roots("client-ca-file")) {
            to.replace_roots(roots);
        }
        if let (None, Some(roots)) =
            (&self.requestheader_client_ca_file, roots("requestheader-client-ca-file"))
        {
            to.replace_proxy(FrontProxy {
                roots,
                allowed: list("requestheader-allowed-names"),
                headers: RemoteHeaders {
                    user: list("requestheader-username-headers"),
                    uid: list("requestheader-uid-headers"),
                    group: list("requestheader-group-headers"),
                    extra: list("requestheader-extra-headers-prefix"),
                },
            });
        }
    }
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Read(std::io::Error),
    #[error(transparent)]
    Use(PkiError),
}
