//! The order of the modes: `--authorization-mode`, or an AuthorizationConfiguration file
//! (`pkg/kubeapiserver/options/authorization.go`, `apiserver/pkg/apis/apiserver`).
//!
//! A file is read again when it changes: webhooks may come and go and the order may change, but Node and RBAC
//! are there from the start or not at all.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Deserialize;

use super::super::cel::Expression;
use super::super::remote::{Remote, RemoteError};
use super::super::watched::Watched;
use super::webhook::{OnError, WebhookAuthorizer, WebhookOptions};
use super::{Authorizer, Mode, node, rbac};
use crate::api::go_duration;
use crate::control::store::Store;
use crate::net::{Egress, Roads};

const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha1"];
/// One call of a webhook that flags name.
const TIMEOUT: Duration = Duration::from_secs(30);

/// `kube-apiserver`'s flags that say who may do what.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthzFlags {
    /// How webhooks are reached.
    #[arg(skip)]
    pub roads: Roads,
    /// In this order: AlwaysAllow, AlwaysDeny, Node, RBAC, Webhook. Without it and without a configuration file, AlwaysAllow.
    #[arg(long, value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// AuthorizationConfiguration: the same in a file, with several webhooks.
    #[arg(long)]
    pub authorization_config: Option<PathBuf>,
    #[arg(long)]
    pub authorization_webhook_config_file: Option<PathBuf>,
    #[arg(long, default_value = "v1beta1")]
    pub authorization_webhook_version: String,
    #[arg(long, default_value = "5m0s", value_parser = go_duration::parse)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    #[arg(long, default_value = "30s", value_parser = go_duration::parse)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
}

/// Why there is no authorizer.
#[derive(Debug, thiserror::Error)]
pub enum AuthzError {
    #[error("authorization-mode {0:?} is not a valid mode")]
    Unknown(String),
    #[error("authorization-mode {0:?} has mode specified more than once")]
    Twice(String),
    #[error(
        "--authorization-mode and --authorization-webhook-* flags cannot be specified when --authorization-config is set"
    )]
    Exclusive,
    #[error("authorization-mode Webhook's authorization config file not passed")]
    NoWebhookFile,
    #[error("cannot specify --authorization-webhook-config-file without mode Webhook")]
    UnusedWebhookFile,
    #[error("read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("use {path}: {why}")]
    Config { path: String, why: String },
    #[error("the {0} authorizer cannot be added or removed while the server runs")]
    Static(&'static str),
    #[error("use the authorization webhook's kubeconfig {path}")]
    Webhook { path: String, source: RemoteError },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<WebhookEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookEntry {
    #[serde(rename = "authorizedTTL", default)]
    authorized_ttl: String,
    #[serde(rename = "unauthorizedTTL", default)]
    unauthorized_ttl: String,
    #[serde(default)]
    timeout: String,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    connection_info: Connection,
    #[serde(default)]
    match_conditions: Vec<MatchCondition>,
    #[serde(default)]
    cache_authorized_requests: Option<bool>,
    #[serde(default)]
    cache_unauthorized_requests: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MatchCondition {
    #[serde(default)]
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

impl AuthzFlags {
    /// Node and RBAC and nothing else, whatever the flags say: the door on the machine's loopback.
    pub fn strict() -> Self {
        Self {
            roads: Roads::default(),
            authorization_mode: vec!["Node".into(), "RBAC".into()],
            authorization_config: None,
            authorization_webhook_config_file: None,
            authorization_webhook_version: "v1".into(),
            authorization_webhook_cache_authorized_ttl: Duration::ZERO,
            authorization_webhook_cache_unauthorized_ttl: Duration::ZERO,
        }
    }

    pub fn build(&self, store: Store) -> Result<Authorizer, AuthzError> {
        let rbac = Arc::new(rbac::Rbac::new(store.clone()));
        let one = |kind: &str| -> Option<Mode> {
            Some(match kind {
                "AlwaysAllow" => Mode::AlwaysAllow,
                "AlwaysDeny" => Mode::AlwaysDeny,
                "Node" => Mode::Node(Arc::new(node::NodeAuthorizer::new(store.clone()))),
                "RBAC" => Mode::Rbac(Arc::clone(&rbac)),
                _ => return None,
            })
        };
        let modes = match &self.authorization_config {
            Some(path) => self.in_file(path, one)?,
            None => self.in_flags(one)?,
        };
        Ok(Authorizer { modes: RwLock::new(Arc::new(modes)), rbac: Arc::clone(&rbac) })
    }

    /// Follows the configuration file, if there is one, as long as anybody authorizes by it.
    pub fn follow(&self, authorizer: &Arc<Authorizer>) {
        let Some(path) = self.authorization_config.clone() else { return };
        let (flags, user) = (self.clone(), Arc::downgrade(authorizer));
        tokio::spawn(async move {
            let mut file = Watched::new(path.clone());
            while file.changed(&user).await.is_some() {
                let Some(authorizer) = user.upgrade() else { return };
                match flags.reload(&path, &authorizer) {
                    Ok(()) => tracing::info!(path = %path.display(), "reloaded authz config"),
                    Err(error) => {
                        let error = crate::control::apiserver::authn::chain(&error);
                        tracing::error!(path = %path.display(), error, "reloading authz config; the one before stays");
                    }
                }
            }
        });
    }

    fn reload(&self, path: &Path, authorizer: &Authorizer) -> Result<(), AuthzError> {
        let before = authorizer.modes();
        let kept = |kind: &str| before.iter().find(|mode| mode.name() == kind).cloned();
        let modes = self.in_file(path, |kind| match kind {
            "AlwaysAllow" => Some(Mode::AlwaysAllow),
            "AlwaysDeny" => Some(Mode::AlwaysDeny),
            kind => kept(kind),
        })?;
        for kind in ["Node", "RBAC"] {
            let there = |modes: &[Mode]| modes.iter().any(|mode| mode.name() == kind);
            if there(&before) != there(&modes) {
                return Err(AuthzError::Static(kind));
            }
        }
        *authorizer.modes.write().expect("nothing panics while holding the lock") = Arc::new(modes);
        Ok(())
    }

    fn in_flags(&self, one: impl Fn(&str) -> Option<Mode>) -> Result<Vec<Mode>, AuthzError> {
        let mut modes = Vec::new();
        for (at, name) in self.authorization_mode.iter().enumerate() {
            if self.authorization_mode[..at].contains(name) {
                return Err(AuthzError::Twice(name.clone()));
            }
            modes.push(match name.as_str() {
                "Webhook" => Mode::Webhook(Arc::new(self.webhook()?)),
                name => one(name).ok_or_else(|| AuthzError::Unknown(name.to_owned()))?,
            });
        }
        if modes.is_empty() {
            modes.push(Mode::AlwaysAllow);
        }
        let webhook = self.authorization_mode.iter().any(|mode| mode == "Webhook");
        match (webhook, &self.authorization_webhook_config_file) {
            (false, Some(_)) => Err(AuthzError::UnusedWebhookFile),
            _ => Ok(modes),
        }
    }

    fn webhook(&self) -> Result<WebhookAuthorizer, AuthzError> {
        let path = self.authorization_webhook_config_file.as_ref().ok_or(AuthzError::NoWebhookFile)?;
        let options = WebhookOptions {
            version: self.authorization_webhook_version.clone(),
            allowed_ttl: self.authorization_webhook_cache_authorized_ttl,
            denied_ttl: self.authorization_webhook_cache_unauthorized_ttl,
            on_error: OnError::NoOpinion,
            conditions: Arc::default(),
        };
        Ok(WebhookAuthorizer::new(remote(path, TIMEOUT, &self.roads)?, options))
    }

    fn in_file(&self, path: &Path, one: impl Fn(&str) -> Option<Mode>) -> Result<Vec<Mode>, AuthzError> {
        if !self.authorization_mode.is_empty() || self.authorization_webhook_config_file.is_some() {
            return Err(AuthzError::Exclusive);
        }
        let shown = || path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| AuthzError::Read { path: shown(), source })?;
        let wrong = |why: String| AuthzError::Config { path: shown(), why };
        let file = File::read(&text).map_err(wrong)?;
        let mut modes = Vec::new();
        for (at, entry) in file.authorizers.iter().enumerate() {
            modes.push(match (&entry.webhook, one(&entry.kind)) {
                (None, Some(mode)) => mode,
                (Some(webhook), None) if entry.kind == "Webhook" => {
                    let at = format!("authorizers[{at}].webhook");
                    let built = webhook
                        .build(&at, &self.roads)
                        .map_err(|why| AuthzError::Config { path: shown(), why })??;
                    Mode::Webhook(Arc::new(built))
                }
                _ => return Err(AuthzError::Unknown(entry.kind.clone())),
            });
        }
        Ok(modes)
    }

    /// Whether everything is allowed; authentication then refuses anonymous requests.
    pub fn always_allows(&self) -> bool {
        match self.authorization_config {
            Some(_) => false,
            None => {
                self.authorization_mode.is_empty()
                    || self.authorization_mode.iter().any(|mode| mode == "AlwaysAllow")
            }
        }
    }
}

impl File {
    fn read(text: &str) -> Result<Self, String> {
        let file: Self =
            serde_yaml_ng::from_str(text).map_err(|error| format!("strict decoding error: {error}"))?;
        let version = file.api_version.strip_prefix("apiserver.config.k8s.io/").unwrap_or_default();
        if file.kind != "AuthorizationConfiguration" || !VERSIONS.contains(&version) {
            return Err(format!("no kind {:?} is registered for version {:?}", file.kind, file.api_version));
        }
        let mut faults = Vec::new();
        if file.authorizers.is_empty() {
            faults
                .push("authorizers: Required value: at least one authorization mode must be defined".into());
        }
        for (at, entry) in file.authorizers.iter().enumerate() {
            let field = format!("authorizers[{at}]");
            let known =
                ["Node", "RBAC", "AlwaysAllow", "AlwaysDeny", "Webhook"].contains(&entry.kind.as_str());
            if !known {
                faults.push(format!("{field}.type: Unsupported value: {:?}", entry.kind));
            }
            if entry.name.is_empty() {
                faults.push(format!("{field}.name: Required value"));
            }
            if file.authorizers[..at].iter().any(|other| other.name == entry.name) {
                faults.push(format!("{field}.name: Duplicate value: {:?}", entry.name));
            }
            let twin = file.authorizers[..at].iter().any(|other| other.kind == entry.kind);
            if twin && entry.kind != "Webhook" {
                faults.push(format!("{field}.type: Duplicate value: {:?}", entry.kind));
            }
            match (&entry.webhook, entry.kind == "Webhook") {
                (None, true) => {
                    faults.push(format!("{field}.webhook: Required value: required when type=Webhook"))
                }
                (Some(_), false) => {
                    faults.push(format!(
                        "{field}.webhook: Invalid value: null: may only be specified when type=Webhook"
                    ));
                }
                _ => {}
            }
        }
        match faults.as_slice() {
            [] => Ok(file),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

impl WebhookEntry {
    /// What must hold for the webhook to be asked at all.
    fn conditions(&self, at: &str) -> Result<Arc<Vec<Expression>>, String> {
        let version = &self.match_condition_subject_access_review_version;
        if !self.match_conditions.is_empty() && version != "v1" {
            return Err(match version.as_str() {
                "" => format!(
                    "{at}.matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified"
                ),
                other => format!(
                    "{at}.matchConditionSubjectAccessReviewVersion: Unsupported value: {other:?}: supported values: \"v1\""
                ),
            });
        }
        let mut compiled = Vec::new();
        for (index, condition) in self.match_conditions.iter().enumerate() {
            let (source, field) =
                (&condition.expression, format!("{at}.matchConditions[{index}].expression"));
            if source.is_empty() {
                return Err(format!("{field}: Required value"));
            }
            let expression = Expression::compile(source, "request");
            compiled.push(expression.map_err(|why| format!("{field}: Invalid value: {source:?}: {why}"))?);
        }
        Ok(Arc::new(compiled))
    }

    /// The outer error is a fault of the entry, the inner one of its kubeconfig.
    fn build(&self, at: &str, roads: &Roads) -> Result<Result<WebhookAuthorizer, AuthzError>, String> {
        let conditions = self.conditions(at)?;
        let duration = |field: &str, text: &str, default: u64| match text {
            "" => Ok(Duration::from_secs(default)),
            text => go_duration::parse(text).map_err(|error| format!("{at}.{field}: Invalid value: {error}")),
        };
        let timeout = match self.timeout.as_str() {
            "" => return Err(format!("{at}.timeout: Required value")),
            text => duration("timeout", text, 0)?,
        };
        if timeout > Duration::from_secs(30) || timeout.is_zero() {
            return Err(format!("{at}.timeout: Invalid value: {:?}: must be > 0s and <= 30s", self.timeout));
        }
        let version = match self.subject_access_review_version.as_str() {
            "v1" | "v1beta1" => self.subject_access_review_version.clone(),
            "" => return Err(format!("{at}.subjectAccessReviewVersion: Required value")),
            other => {
                return Err(format!(
                    "{at}.subjectAccessReviewVersion: Unsupported value: {other:?}: supported values: \"v1\", \"v1beta1\""
                ));
            }
        };
        let on_error = match self.failure_policy.as_str() {
            "NoOpinion" => OnError::NoOpinion,
            "Deny" => OnError::Deny,
            "" => return Err(format!("{at}.failurePolicy: Required value")),
            other => {
                return Err(format!(
                    "{at}.failurePolicy: Unsupported value: {other:?}: supported values: \"NoOpinion\", \"Deny\""
                ));
            }
        };
        let file = match (self.connection_info.kind.as_str(), &self.connection_info.kube_config_file) {
            ("KubeConfigFile", Some(file)) => file,
            ("KubeConfigFile", None) => {
                return Err(format!("{at}.connectionInfo.kubeConfigFile: Required value"));
            }
            (other, _) => {
                return Err(format!(
                    "{at}.connectionInfo.type: Unsupported value: {other:?}: supported values: \"InClusterConfig\", \"KubeConfigFile\""
                ));
            }
        };
        let kept =
            |cached: Option<bool>, life: Duration| if cached == Some(false) { Duration::ZERO } else { life };
        let options = WebhookOptions {
            version,
            allowed_ttl: kept(
                self.cache_authorized_requests,
                duration("authorizedTTL", &self.authorized_ttl, 300)?,
            ),
            denied_ttl: kept(
                self.cache_unauthorized_requests,
                duration("unauthorizedTTL", &self.unauthorized_ttl, 30)?,
            ),
            on_error,
            conditions,
        };
        Ok(remote(file, timeout, roads).map(|remote| WebhookAuthorizer::new(remote, options)))
    }
}

fn remote(path: &Path, timeout: Duration, roads: &Roads) -> Result<Remote, AuthzError> {
    Remote::from_kubeconfig(path, timeout, roads.to(Egress::ControlPlane))
        .map_err(|source| AuthzError::Webhook { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n";

    #[test]
    fn a_file_orders_the_modes_and_its_faults_are_told_by_path() {
        let text =
            format!("{HEAD}authorizers:\n- {{type: Node, name: node}}\n- {{type: RBAC, name: rbac}}\n");
        assert_eq!(File::read(&text).unwrap().authorizers.len(), 2);
        let text = format!("{HEAD}authorizers:\n- {{type: RBAC, name: a}}\n- {{type: RBAC, name: a}}\n");
        assert_eq!(
            File::read(&text).err().unwrap(),
            "[authorizers[1].name: Duplicate value: \"a\", authorizers[1].type: Duplicate value: \"RBAC\"]"
        );
        assert!(File::read(HEAD).err().unwrap().contains("at least one authorization mode"));
    }
}
