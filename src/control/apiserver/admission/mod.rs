//! Admission: what happens to a write between "you may" and the store (`plugin/pkg/admission`).
//!
//! An ordered list of plugins under upstream's names, each of which may change the object or refuse it.
//! Left out for now: webhooks and policies, quotas and limits, and the other names of `UNIMPLEMENTED`.

mod certificates;
mod escalation;
mod external_ips;
mod lifecycle;
mod node_restriction;
mod node_taint;
mod priority;
mod service_account;
mod tolerations;

use std::sync::Arc;

use serde_json::Value;

use super::authz::Authorizer;
use super::lookup;
use super::user::UserInfo;
use crate::api::status::{Result, Status};
use crate::control::store::Store;

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
    #[expect(dead_code, reason = "admission webhooks and policies read it, which come later")]
    pub version: String,
    #[expect(dead_code, reason = "admission webhooks and policies read it, which come later")]
    pub kind: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// What is to be stored; none for a deletion.
    pub object: Option<Value>,
    /// What is stored now; none for a creation.
    pub old: Option<Value>,
    #[expect(dead_code, reason = "admission webhooks and policies read it, which come later")]
    pub dry_run: bool,
}

impl Attributes {
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
    ("NamespaceLifecycle", true),
    ("ServiceAccount", true),
    ("NodeRestriction", false),
    ("TaintNodesByCondition", true),
    ("Priority", true),
    ("DefaultTolerationSeconds", true),
    ("CertificateApproval", true),
    ("CertificateSigning", true),
    ("CertificateSubjectRestriction", true),
    ("DenyServiceExternalIPs", false),
];

/// Real names that are accepted and do nothing yet.
const UNIMPLEMENTED: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NodeDeclaredFeatureValidator",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "PodNodeSelector",
    "PodSecurity",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "ResourceQuota",
    "RuntimeClass",
    "StorageObjectInUseProtection",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// `kube-apiserver`'s admission flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AdmissionFlags {
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
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
    not_ready_seconds: i64,
    unreachable_seconds: i64,
}

impl AdmissionFlags {
    pub fn build(
        &self,
        store: Store,
        authorizer: Arc<Authorizer>,
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
            not_ready_seconds: self.default_not_ready_toleration_seconds,
            unreachable_seconds: self.default_unreachable_toleration_seconds,
        };
        let plugins =
            PLUGINS.iter().filter(|(name, default)| on(name, *default)).map(|(name, _)| *name).collect();
        Ok(Admission { plugins, context })
    }
}

impl Admission {
    /// Runs every plugin over a write; the object may come out changed.
    ///
    /// # Errors
    /// The refusal of the first plugin that has one.
    pub async fn admit(&self, write: &mut Attributes) -> Result<()> {
        for name in &self.plugins {
            match *name {
                "NamespaceLifecycle" => lifecycle::admit(&self.context, write)?,
                "ServiceAccount" => service_account::admit(&self.context, write).await?,
                "NodeRestriction" => node_restriction::admit(&self.context, write)?,
                "TaintNodesByCondition" => node_taint::admit(write),
                "Priority" => priority::admit(&self.context, write)?,
                "DefaultTolerationSeconds" => tolerations::admit(&self.context, write),
                "CertificateApproval" => certificates::approval(&self.context, write)?,
                "CertificateSigning" => certificates::signing(&self.context, write)?,
                "CertificateSubjectRestriction" => certificates::subject(write)?,
                "DenyServiceExternalIPs" => external_ips::admit(write)?,
                _ => {}
            }
        }
        // Upstream has this in RBAC's own registry: no flag switches it off.
        escalation::admit(&self.context, write)
    }
}

/// The elements of an array, none when it is absent.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests;
