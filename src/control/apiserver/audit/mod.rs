//! Audit: who asked for what, when, and what they were answered (`apiserver/pkg/audit`).
//!
//! A policy says for each request how much is kept and at which stages. Each kept stage is one line of
//! JSON in `--audit-log-path`, written before the answer goes out, as upstream's default mode `blocking`
//! does, and one event for the server of `--audit-webhook-config-file`. Left out: batches for the log,
//! truncation and the legacy text format.

mod event;
mod log;
mod policy;
mod trail;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

pub use trail::Trail;

use super::request::RequestInfo;
use super::user::UserInfo;
use crate::net::Roads;
use log::Log;
use policy::Policy;
use webhook::{Webhook, WebhookFlags};

/// A stage of a request at which an event can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// `kube-apiserver`'s audit flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AuditFlags {
    /// How the webhook is reached.
    #[arg(skip)]
    pub roads: Roads,
    #[arg(long)]
    pub audit_policy_file: Option<PathBuf>,
    /// `-` is standard output.
    #[arg(long)]
    pub audit_log_path: Option<PathBuf>,
    /// In megabytes; a file that would grow beyond is set aside. 0 means 100.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// How many files set aside are kept; 0 means all.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// How many days they are kept; 0 means for ever.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u64,
    #[arg(long, default_value = "json", value_parser = ["json"])]
    pub audit_log_format: String,
    #[arg(long, default_value = "blocking", value_parser = ["blocking", "blocking-strict"])]
    pub audit_log_mode: String,
    #[command(flatten)]
    pub webhook: WebhookFlags,
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("use the audit policy {path}: {why}")]
    Policy { path: PathBuf, why: String },
    #[error("open the audit log {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("use the audit webhook {path}")]
    Webhook { path: PathBuf, source: super::remote::RemoteError },
}

impl AuditFlags {
    /// Reads the policy and opens the backends; nothing when none is wanted.
    pub fn build(&self) -> Result<Option<Arc<Audit>>, AuditError> {
        let backends = [
            ("log", self.audit_log_path.is_some()),
            ("webhook", self.webhook.audit_webhook_config_file.is_some()),
        ];
        let wanted: Vec<&str> =
            backends.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| *name).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let Some(policy) = &self.audit_policy_file else {
            for backend in wanted {
                tracing::warn!(
                    "No audit policy file provided, no events will be recorded for {backend} backend"
                );
            }
            return Ok(None);
        };
        let text = std::fs::read_to_string(policy)
            .map_err(|source| AuditError::Read { path: policy.clone(), source })?;
        let policy = Policy::read(&text).map_err(|why| AuditError::Policy { path: policy.clone(), why })?;
        let log = self.audit_log_path.as_ref().map(|path| {
            Log::open(path, self.audit_log_maxsize, self.audit_log_maxbackup, self.audit_log_maxage)
                .map_err(|source| AuditError::Open { path: path.clone(), source })
        });
        Ok(Some(Arc::new(Audit { policy, log: log.transpose()?, webhook: self.webhook.build(&self.roads)? })))
    }
}

/// The policy and where events go.
pub struct Audit {
    policy: Policy,
    log: Option<Log>,
    webhook: Option<Webhook>,
}

/// A request as audit sees it when it comes in.
pub struct Arrived<'a> {
    pub id: &'a str,
    pub uri: &'a str,
    pub info: &'a RequestInfo,
    /// Nobody yet, when authentication failed.
    pub user: &'a UserInfo,
    pub headers: &'a HeaderMap,
    pub from: Option<std::net::IpAddr>,
    pub at: jiff::Timestamp,
}

impl Audit {
    /// Starts the trail of a request, if the policy wants any of it.
    pub fn arrived(self: &Arc<Self>, request: &Arrived<'_>) -> Option<Trail> {
        let rule = self.policy.rule(request.user, request.info)?;
        Some(Trail::new(self.clone(), rule, request))
    }

    fn write(&self, line: Bytes) {
        if let Some(log) = &self.log {
            log.write(&line);
        }
        if let Some(webhook) = &self.webhook {
            webhook.send(line);
        }
    }

    /// Sends what waits, when the server stops.
    pub async fn flush(&self) {
        if let Some(webhook) = &self.webhook {
            webhook.flush().await;
        }
    }
}
