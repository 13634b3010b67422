//! Admission: what happens to a write between "you may" and the store (`plugin/pkg/admission`).
//!
//! An ordered list of plugins under upstream's names. Those that may change an object see it as it was sent,
//! those that only judge see it as it will be stored.
//! Left out: the names of `UNIMPLEMENTED`.

mod certificates;
mod escalation;
mod external_ips;
mod lifecycle;
mod limits;
mod namespaces;
mod node_restriction;
mod node_taint;
mod owners;
mod pod_security;
pub mod policies;
mod priority;
mod pull;
mod quota;
mod service_account;
mod storage_class;
mod tolerations;
mod webhooks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::authz::Authorizer;
use super::lookup;
use super::user::UserInfo;
use crate::api::status::{Result, Status};
use crate::control::store::Store;
use crate::net::Roads;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// One write on its way.
#[derive(Debug, Clone)]
pub struct Attributes {
    pub user: UserInfo,
    pub operation: Operation,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// What is to be stored; none for a deletion.
    pub object: Option<Value>,
    /// What is stored now; none for a creation.
    pub old: Option<Value>,
    pub dry_run: bool,
    /// What plugins tell the audit log.
    pub annotations: Vec<(String, String)>,
    /// What plugins tell the client.
    pub warnings: Vec<String>,
}

impl Attributes {
    fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.push((key.to_owned(), value.to_owned()));
    }

    /// Whether this is about a resource itself or, with `/`, one of its subresources: `pods`, `pods/status`.
    fn is(&self, group: &str, what: &str) -> bool {
        let (resource, subresource) = what.split_once('/').unwrap_or((what, ""));
        self.group == group && self.resource == resource && self.subresource == subresource
    }

    /// A string of the new object at a JSON pointer, empty when there is none.
    fn new_text(&self, pointer: &str) -> &str {
        self.object.as_ref().map_or("", |object| lookup::text(object, pointer))
    }

    fn old_text(&self, pointer: &str) -> &str {
        self.old.as_ref().map_or("", |object| lookup::text(object, pointer))
    }

    /// The 403 upstream's `admission.NewForbidden` makes.
    fn forbidden(&self, why: impl AsRef<str>) -> Status {
        let name = match self.name.as_str() {
            "" => [self.new_text("/metadata/name"), self.new_text("/metadata/generateName")]
                .into_iter()
                .find(|name| !name.is_empty())
                .unwrap_or("Unknown/errorGettingName"),
            name => name,
        };
        Status::forbidden(&self.group, &self.resource, name, why.as_ref())
    }
}

/// The plugins there are, in the order they run; those marked are on unless switched off.
const PLUGINS: &[(&str, bool)] = &[
    ("AlwaysAdmit", false),
    ("NamespaceAutoProvision", false),
    ("NamespaceLifecycle", true),
    ("NamespaceExists", false),
    ("LimitRanger", true),
    ("ServiceAccount", true),
    ("NodeRestriction", false),
    ("TaintNodesByCondition", true),
    ("AlwaysPullImages", false),
    ("PodSecurity", true),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("DefaultStorageClass", true),
    ("OwnerReferencesPermissionEnforcement", false),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("CertificateSubjectRestriction", true),
    ("DenyServiceExternalIPs", false),
    ("MutatingAdmissionPolicy", true),
    ("MutatingAdmissionWebhook", true),
    ("ValidatingAdmissionPolicy", true),
    ("ValidatingAdmissionWebhook", true),
    ("ResourceQuota", true),
    ("AlwaysDeny", false),
];

/// Real names that are accepted and do nothing yet.
const UNIMPLEMENTED: &[&str] = &[
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "NodeDeclaredFeatureValidator",
    "PersistentVolumeClaimResize",
    "PodNodeSelector",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "RuntimeClass",
    "StorageObjectInUseProtection",
];

/// `kube-apiserver`'s admission flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AdmissionFlags {
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// AdmissionConfiguration; of it the plugin PodSecurity's part is read.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    #[arg(long, default_value_t = 300)]
    pub default_not_ready_toleration_seconds: i64,
    #[arg(long, default_value_t = 300)]
    pub default_unreachable_toleration_seconds: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error("enable-admission-plugins plugin {0:?} is unknown")]
    UnknownEnabled(String),
    #[error("disable-admission-plugins plugin {0:?} is unknown")]
    UnknownDisabled(String),
    #[error("{0} in enable-admission-plugins and disable-admission-plugins overlapped")]
    Both(String),
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("use the admission configuration {path}")]
    Config { path: PathBuf, source: serde_yaml_ng::Error },
}

/// The list of plugins of one API server.
pub struct Admission {
    plugins: Vec<&'static str>,
    context: Context,
}

/// What plugins look at beside the write.
struct Context {
    store: Store,
    authorizer: Arc<Authorizer>,
    roads: Roads,
    not_ready_seconds: i64,
    unreachable_seconds: i64,
    pod_security: pod_security::PodSecurityConfiguration,
}

impl AdmissionFlags {
    pub fn build(
        &self,
        store: Store,
        authorizer: Arc<Authorizer>,
        roads: Roads,
    ) -> std::result::Result<Admission, AdmissionError> {
        let (enabled, disabled) = (&self.enable_admission_plugins, &self.disable_admission_plugins);
        let known = |name: &str| PLUGINS.iter().any(|(own, _)| *own == name) || UNIMPLEMENTED.contains(&name);
        if let Some(name) = enabled.iter().find(|name| !known(name)) {
            return Err(AdmissionError::UnknownEnabled(name.clone()));
        }
        if let Some(name) = disabled.iter().find(|name| !known(name)) {
            return Err(AdmissionError::UnknownDisabled(name.clone()));
        }
        if let Some(name) = enabled.iter().find(|name| disabled.contains(name)) {
            return Err(AdmissionError::Both(name.clone()));
        }
        // A real flag of a real cluster starts here too: what it asks for and does not get is said aloud.
        for name in enabled.iter().filter(|name| UNIMPLEMENTED.contains(&name.as_str())) {
            tracing::warn!(plugin = name, "This admission plugin is not implemented and does nothing");
        }
        let on = |name: &str, default: bool| {
            let named = |list: &[String]| list.iter().any(|one| one == name);
            (default || named(enabled)) && !named(disabled)
        };
        let context = Context {
            store,
            authorizer,
            roads,
            not_ready_seconds: self.default_not_ready_toleration_seconds,
            unreachable_seconds: self.default_unreachable_toleration_seconds,
            pod_security: self.pod_security()?,
        };
        let plugins =
            PLUGINS.iter().filter(|(name, default)| on(name, *default)).map(|(name, _)| *name).collect();
        Ok(Admission { plugins, context })
    }

    /// PodSecurity's part of the configuration file, written into it or in a file it names.
    fn pod_security(&self) -> std::result::Result<pod_security::PodSecurityConfiguration, AdmissionError> {
        let Some(path) = &self.admission_control_config_file else { return Ok(Default::default()) };
        let read = |path: &Path| -> std::result::Result<Value, AdmissionError> {
            let text = std::fs::read_to_string(path)
                .map_err(|source| AdmissionError::Read { path: path.to_owned(), source })?;
            serde_yaml_ng::from_str(&text)
                .map_err(|source| AdmissionError::Config { path: path.to_owned(), source })
        };
        let file = read(path)?;
        let Some(own) = list(&file["plugins"]).iter().find(|plugin| plugin["name"] == "PodSecurity") else {
            return Ok(Default::default());
        };
        let configuration = match own["path"].as_str() {
            Some(named) => read(&path.parent().unwrap_or(Path::new("")).join(named))?,
            None => own["configuration"].clone(),
        };
        serde_yaml_ng::to_value(configuration)
            .and_then(serde_yaml_ng::from_value)
            .map_err(|source| AdmissionError::Config { path: path.clone(), source })
    }
}

impl Admission {
    /// Runs every plugin over a write that is stored as it comes; the object may come out changed.
    ///
    /// # Errors
    /// The refusal of the first plugin that has one.
    pub async fn admit(&self, write: &mut Attributes) -> Result<()> {
        self.mutate(write).await?;
        self.validate(write).await
    }

    /// The first half, before the strategy has its say: what may change an object, and refuses what it sees.
    pub async fn mutate(&self, write: &mut Attributes) -> Result<()> {
        let mut changed = policies::mutating::Round::default();
        for name in &self.plugins {
            match *name {
                "NamespaceAutoProvision" => namespaces::provision(&self.context, write).await?,
                "NamespaceLifecycle" => lifecycle::admit(&self.context, write)?,
                "LimitRanger" => limits::admit(&self.context, write),
                "ServiceAccount" => service_account::admit(&self.context, write).await?,
                "NodeRestriction" => node_restriction::admit(&self.context, write).await?,
                "TaintNodesByCondition" => node_taint::admit(write),
                "AlwaysPullImages" => pull::admit(write),
                "Priority" => priority::admit(&self.context, write)?,
                "DefaultTolerationSeconds" => tolerations::admit(&self.context, write),
                "DefaultStorageClass" => storage_class::admit(&self.context, write),
                "MutatingAdmissionPolicy" => changed = policies::mutating::first(&self.context, write)?,
                "MutatingAdmissionWebhook" => webhooks::mutate(&self.context, write).await?,
                "AlwaysDeny" => return Err(write.forbidden("admission control is denying all modifications")),
                _ => {}
            }
        }
        changed.again(&self.context, write)?;
        // Upstream has this in RBAC's own registry: no flag switches it off.
        escalation::admit(&self.context, write).await
    }

    /// The second half: judges what will be stored, after a strategy took out of what was sent all that
    /// this kind of write does not change.
    pub async fn validate(&self, write: &mut Attributes) -> Result<()> {
        for name in &self.plugins {
            match *name {
                "NamespaceExists" => namespaces::exists(&self.context, write)?,
                "Priority" => priority::validate(&self.context, write)?,
                "PodSecurity" => pod_security::admit(&self.context, write)?,
                "OwnerReferencesPermissionEnforcement" => owners::admit(&self.context, write).await?,
                "CertificateApproval" => certificates::approval(&self.context, write).await?,
                "CertificateSigning" => certificates::signing(&self.context, write).await?,
                "CertificateSubjectRestriction" => certificates::subject(write)?,
                "DenyServiceExternalIPs" => external_ips::admit(write)?,
                "LimitRanger" => limits::validate(&self.context, write)?,
                "ResourceQuota" => quota::admit(&self.context, write).await?,
                "ValidatingAdmissionPolicy" => policies::validating::validate(&self.context, write)?,
                "ValidatingAdmissionWebhook" => webhooks::validate(&self.context, write).await?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The elements of an array, none when it is absent.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
