//! Authorization: may they (`pkg/kubeapiserver/authorizer`).
//!
//! An ordered list of modes; each allows, denies or has no opinion, and no opinion from all is 403.
//! Members of `system:masters` are let through before any of them. Left out: ABAC.

mod config;
mod node;
mod rbac;
mod rules;
mod webhook;

use std::sync::{Arc, RwLock};

use super::request::RequestInfo;
use super::user::UserInfo;
use crate::api::status::Status;

pub use config::{AuthzError, AuthzFlags};
pub use node::node_name;
pub use rules::{Rule, cover};

/// The group nobody asks.
pub const MASTERS: &str = "system:masters";

/// What one mode, or all together, say.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Allow {
        reason: Arc<str>,
    },
    /// Nobody after it is asked; only a webhook says this.
    Deny {
        reason: String,
    },
    NoOpinion {
        reason: String,
    },
    /// Nobody allowed it, and somebody who might have could not be asked: upstream's error beside a
    /// decision, answered with 500.
    Failed {
        error: String,
        denied: bool,
    },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    fn allow() -> Self {
        static NOTHING: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
        Self::Allow { reason: Arc::clone(NOTHING.get_or_init(|| "".into())) }
    }

    fn no_opinion(reason: impl Into<String>) -> Self {
        Self::NoOpinion { reason: reason.into() }
    }
}

#[derive(Clone)]
enum Mode {
    AlwaysAllow,
    AlwaysDeny,
    Node(Arc<node::NodeAuthorizer>),
    Rbac(Arc<rbac::Rbac>),
    Webhook(Arc<webhook::WebhookAuthorizer>),
}

impl Mode {
    /// As flags and files call it.
    fn name(&self) -> &'static str {
        match self {
            Self::AlwaysAllow => "AlwaysAllow",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::Node(_) => "Node",
            Self::Rbac(_) => "RBAC",
            Self::Webhook(_) => "Webhook",
        }
    }
}

/// The modes, in order.
pub struct Authorizer {
    /// Replaced as a whole when the file that orders them changes.
    modes: RwLock<Arc<Vec<Mode>>>,
    /// Also there when RBAC is no mode: checks against privilege escalation ask it.
    rbac: Arc<rbac::Rbac>,
}

impl Authorizer {
    fn modes(&self) -> Arc<Vec<Mode>> {
        Arc::clone(&self.modes.read().expect("nothing panics while holding the lock"))
    }

    /// Asks the modes in order until one has an opinion.
    pub async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::allow();
        }
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for mode in self.modes().iter() {
            let decision = match mode {
                Mode::AlwaysAllow => Decision::allow(),
                Mode::AlwaysDeny => Decision::no_opinion("Everything is forbidden."),
                Mode::Node(node) => node.authorize(user, info),
                Mode::Rbac(rbac) => rbac.authorize(user, info),
                Mode::Webhook(webhook) => webhook.authorize(user, info).await,
            };
            match decision {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                Decision::Failed { error, denied: false } => errors.push(error),
                decided => return decided,
            }
        }
        match errors.as_slice() {
            [] => Decision::NoOpinion { reason: reasons.join("\n") },
            [one] => Decision::Failed { error: one.clone(), denied: false },
            several => Decision::Failed { error: format!("[{}]", several.join(", ")), denied: false },
        }
    }

    /// What a user may do in a namespace, as far as it can be listed (`kubectl auth can-i --list`), and why
    /// the list is not complete.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Arc<Vec<Rule>>>, Vec<String>) {
        let (mut rules, mut gaps) = (Vec::new(), Vec::new());
        for mode in self.modes().iter() {
            match mode {
                Mode::AlwaysAllow => rules.push(Arc::new(Rule::everything())),
                Mode::AlwaysDeny => {}
                Mode::Node(_) if node_name(user).is_some() => {
                    gaps.push("node authorizer does not support user rule resolution".to_owned());
                }
                Mode::Node(_) => {}
                Mode::Rbac(rbac) => {
                    let (found, errors) = rbac.rules_for(user, namespace);
                    rules.extend(found);
                    gaps.extend(errors);
                }
                Mode::Webhook(_) => {
                    gaps.push("webhook authorizer does not support user rule resolution".to_owned());
                }
            }
        }
        (rules, gaps)
    }

    /// What of these rules `user` does not hold in a namespace (empty: the whole cluster), and the roles that
    /// could not be found: nobody may hand out what they do not have.
    pub fn lacks(&self, user: &UserInfo, namespace: &str, wanted: &[Rule]) -> (Vec<Rule>, Vec<String>) {
        if user.in_group(MASTERS) {
            return (Vec::new(), Vec::new());
        }
        let (held, errors) = self.rbac.rules_for(user, namespace);
        (rules::missing(&held, wanted), errors)
    }
}

/// The 403 that upstream answers.
pub fn forbidden(user: &UserInfo, info: &RequestInfo, reason: &str) -> Status {
    let (name, verb) = (&user.name, &info.verb);
    let Some(resource) = &info.resource else {
        let text = with_reason(format!("User {name:?} cannot {verb} path {:?}", info.path), reason);
        return Status::new(403, "Forbidden", format!("forbidden: {text}"))
            .with_details(serde_json::json!({}));
    };
    let what = match resource.subresource.as_str() {
        "" => resource.resource.clone(),
        sub => format!("{}/{sub}", resource.resource),
    };
    let scope = match resource.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let group = &resource.group;
    let text = format!("User {name:?} cannot {verb} resource {what:?} in API group {group:?} {scope}");
    Status::forbidden(group, &resource.resource, &resource.name, &with_reason(text, reason))
}

fn with_reason(text: String, reason: &str) -> String {
    if reason.is_empty() { text } else { format!("{text}: {reason}") }
}

#[cfg(test)]
mod tests;
