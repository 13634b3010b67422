//! Audit: who asked for what, when, and what they were answered (`apiserver/pkg/audit`).
//!
//! A policy says for each request how much is kept and at which stages. Each kept stage is one line of
//! JSON in `--audit-log-path`, written before the answer goes out, as upstream's default mode `blocking`
//! does, and one event for the server of `--audit-webhook-config-file`. In mode `blocking-strict` a request
//! whose arrival cannot be written goes no further. Left out: batches for the log, and its legacy text format.

mod event;
mod log;
mod policy;
mod trail;
mod truncate;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

pub use trail::Trail;

use super::request::RequestInfo;
use super::user::UserInfo;
use crate::net::Roads;
use event::Event;
use log::Log;
use policy::Policy;
use truncate::LogTruncateFlags;
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
    pub log_truncate: LogTruncateFlags,
    #[command(flatten)]
    pub webhook: WebhookFlags,
}

impl AuditFlags {
    /// Whether a request must not go on once its arrival could not be written.
    fn is_strict(&self) -> bool {
        self.audit_log_mode == "blocking-strict" || self.webhook.audit_webhook_mode == "blocking-strict"
    }
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
        Ok(Some(Arc::new(Audit {
            policy,
            log: log.transpose()?,
            log_limit: self.log_truncate.limit(),
            webhook: self.webhook.build(&self.roads)?,
            webhook_limit: self.webhook.truncate.limit(),
            strict: self.is_strict(),
        })))
    }
}

/// The policy and where events go.
pub struct Audit {
    policy: Policy,
    log: Option<Log>,
    /// The longest event a backend takes whole.
    log_limit: Option<usize>,
    webhook: Option<Webhook>,
    webhook_limit: Option<usize>,
    strict: bool,
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

    /// Hands an event to every backend; false when one that is strict could not take it.
    fn write(&self, event: &Event) -> bool {
        let Some(line) = line(event) else { return !self.strict };
        let mut taken = true;
        if let Some(log) = &self.log {
            taken &= truncate::within(self.log_limit, event, &line).is_some_and(|line| log.write(&line));
        }
        if let Some(webhook) = &self.webhook {
            let fits = truncate::within(self.webhook_limit, event, &line);
            taken &= fits.is_some_and(|line| webhook.send(line));
        }
        taken || !self.strict
    }

    /// Sends what waits, when the server stops.
    pub async fn flush(&self) {
        if let Some(webhook) = &self.webhook {
            webhook.flush().await;
        }
    }
}

/// One line of JSON.
fn line(event: &Event) -> Option<Bytes> {
    match serde_json::to_vec(event) {
        Ok(mut line) => {
            line.push(b'\n');
            Some(Bytes::from(line))
        }
        Err(error) => {
            tracing::error!(%error, "An audit event could not be written");
            None
        }
    }
}
