//! The ways to act as somebody else, in the order they are tried (`impersonation/mode.go`).
//!
//! A constrained mode asks twice: whether its sender may send this very request while acting so
//! (`impersonate-on:MODE:VERB`), and whether as this identity (`impersonate:MODE`). The old mode asks only
//! for the identity, by the verb `impersonate`.

use super::Acting;
use crate::api::names;
use crate::api::status::{Result, Status};
use crate::control::apiserver::authn::{AUTHENTICATED, UNAUTHENTICATED};
use crate::control::apiserver::authz::{self, Authorizer, Decision, MASTERS};
use crate::control::apiserver::request::{RequestInfo, ResourceRequest};
use crate::control::apiserver::user::UserInfo;

const ACCOUNT: &str = "system:serviceaccount:";
const NODE: &str = "system:node:";
const NODE_KEY: &str = "authentication.kubernetes.io/node-name";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// From so many questions on, one for all of them is tried first.
const MANY: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    /// A pod acts as the node it runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Everybody who is neither node nor account.
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// Finds a mode that lets `own` send `info` as `wanted`.
///
/// # Errors
/// The refusal of the first mode that could have.
pub(super) async fn act(
    authorizer: &Authorizer,
    own: &UserInfo,
    info: &RequestInfo,
    wanted: UserInfo,
) -> Result<Acting> {
    let mut refusal = None;
    for mode in MODES.into_iter().filter(|mode| mode.is_for(&wanted, own)) {
        let asking = Asking { authorizer, own, mode };
        match asking.act(info, &wanted).await {
            Ok(user) => {
                let constraint = if mode == Mode::Legacy { String::new() } else { mode.verb() };
                return Ok(Acting { user, constraint });
            }
            Err(status) => drop(refusal.get_or_insert(status)),
        }
    }
    Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn verb(self) -> String {
        match self {
            Self::Legacy => "impersonate".into(),
            mode => format!("impersonate:{}", mode.name()),
        }
    }

    /// Whether the mode is about such an identity at all.
    fn is_for(self, wanted: &UserInfo, own: &UserInfo) -> bool {
        let bare = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        match self {
            Self::AssociatedNode => bare && node(&wanted.name).is_some_and(|name| runs_on(own, name)),
            Self::ArbitraryNode => bare && node(&wanted.name).is_some(),
            Self::ServiceAccount => bare && account(&wanted.name).is_some(),
            Self::UserInfo => node(&wanted.name).is_none() && account(&wanted.name).is_none(),
            Self::Legacy => true,
        }
    }
}

/// One mode's questions.
struct Asking<'a> {
    authorizer: &'a Authorizer,
    own: &'a UserInfo,
    mode: Mode,
}

impl Asking<'_> {
    async fn act(&self, info: &RequestInfo, wanted: &UserInfo) -> Result<UserInfo> {
        let constrained = self.mode != Mode::Legacy;
        if constrained {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), info.verb);
            self.ask(&RequestInfo { verb, ..info.clone() }).await?;
        }
        let mut user = wanted.clone();
        self.name(wanted, &mut user).await?;
        if !wanted.uid.is_empty() {
            self.part(one(AUTHENTICATION, "uids", &wanted.uid)).await?;
        }
        self.groups(&wanted.groups).await?;
        self.extra(wanted).await?;
        let implied = match user.name == "system:anonymous" {
            true => UNAUTHENTICATED,
            false => AUTHENTICATED,
        };
        let known = implied == AUTHENTICATED && user.in_group(UNAUTHENTICATED);
        if !known && !user.in_group(implied) {
            user.groups.push(implied.into());
        }
        Ok(user)
    }

    async fn name(&self, wanted: &UserInfo, user: &mut UserInfo) -> Result<()> {
        if let (Some(name), true) = (node(&wanted.name), self.mode != Mode::Legacy) {
            user.groups = vec!["system:nodes".into()];
            // A pod may act as its own node or not, whichever that is.
            let name = if self.mode == Mode::AssociatedNode { "*" } else { name };
            return self.part(one(self.group(), "nodes", name)).await;
        }
        let Some((namespace, name)) = account(&wanted.name) else {
            return self.part(one(self.group(), "users", &wanted.name)).await;
        };
        if wanted.groups.is_empty() {
            user.groups =
                vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        let part = one(self.group(), "serviceaccounts", name);
        self.part(ResourceRequest { namespace: namespace.into(), ..part }).await
    }

    async fn groups(&self, groups: &[String]) -> Result<()> {
        let part = |name: &str| one(self.group(), "groups", name);
        if self.mode != Mode::Legacy {
            if groups.iter().any(String::is_empty) {
                return Err(self.refusal(part(""), "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|group| group == MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(self.refusal(part(MASTERS), why));
            }
            if groups.len() >= MANY && self.part(part("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.part(part(group)).await?;
        }
        Ok(())
    }

    async fn extra(&self, wanted: &UserInfo) -> Result<()> {
        let part = |key: &str, value: &str| ResourceRequest {
            subresource: key.into(),
            ..one(AUTHENTICATION, "userextras", value)
        };
        if self.mode != Mode::Legacy {
            if let Some(why) = wanted.extra.iter().find_map(|(key, values)| wrong_extra(key, values)) {
                return Err(self.refusal(part("", ""), &why));
            }
            let count: usize = wanted.extra.values().map(Vec::len).sum();
            if count >= MANY && self.part(part("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in &wanted.extra {
            for value in values {
                self.part(part(key, value)).await?;
            }
        }
        Ok(())
    }

    /// Whether this part of an identity may be taken.
    async fn part(&self, part: ResourceRequest) -> Result<()> {
        self.ask(&RequestInfo { verb: self.mode.verb(), path: String::new(), resource: Some(part) }).await
    }

    async fn ask(&self, info: &RequestInfo) -> Result<()> {
        let stripped;
        let own = match self.mode {
            // The answer must not depend on which pod asks: what its token tells is left out.
            Mode::AssociatedNode => {
                let keys: Vec<String> = self.own.extra.keys().cloned().collect();
                let extra = [("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)].into();
                stripped = UserInfo { extra, ..self.own.clone() };
                &stripped
            }
            _ => self.own,
        };
        match self.authorizer.authorize(own, info).await {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                Err(authz::forbidden(own, info, &reason))
            }
            Decision::Failed { error, .. } => Err(Status::internal(error)),
        }
    }

    fn refusal(&self, part: ResourceRequest, why: &str) -> Status {
        let info = RequestInfo { verb: self.mode.verb(), path: String::new(), resource: Some(part) };
        authz::forbidden(self.own, &info, why)
    }

    /// Where users, groups, nodes and accounts are asked for.
    fn group(&self) -> &'static str {
        if self.mode == Mode::Legacy { "" } else { AUTHENTICATION }
    }
}

fn one(group: &str, resource: &str, name: &str) -> ResourceRequest {
    ResourceRequest {
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        name: name.into(),
        ..Default::default()
    }
}

/// What the constrained modes do not take among an identity's extras.
fn wrong_extra(key: &str, values: &[String]) -> Option<String> {
    let domain = key
        .split_once('/')
        .is_some_and(|(domain, path)| !path.is_empty() && names::dns1123_subdomain(domain).is_empty());
    match (key, values) {
        ("", _) => Some("impersonating the empty string key in extra is not allowed".into()),
        (key, _) if !domain => Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: must be a \
             domain-prefixed path (such as \"acme.io/foo\")"
        )),
        (key, _) if key.chars().any(char::is_uppercase) => {
            Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"))
        }
        (_, values) if values.iter().any(String::is_empty) => {
            Some("impersonating the empty string value in extra is not allowed".into())
        }
        _ => None,
    }
}

/// Namespace and name of a service account, if the user is one.
fn account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT)?.split_once(':')?;
    let valid = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

/// A node's name, if the user is one.
fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE).filter(|name| names::dns1123_subdomain(name).is_empty())
}

/// Whether this is a pod's account whose token names the node it runs on.
fn runs_on(own: &UserInfo, node: &str) -> bool {
    let said = own.extra.get(NODE_KEY).map(Vec::as_slice);
    account(&own.name).is_some() && matches!(said, Some([name]) if name == node)
}

#[cfg(test)]
#[path = "modes_tests.rs"]
mod tests;
