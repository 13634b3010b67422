//! Acting as somebody else: `kubectl --as`, `--as-group` (`endpoints/filters/impersonation.go`).
//!
//! Every part of the other identity needs the verb `impersonate`; from then on the request is theirs.

use http::{HeaderMap, HeaderName};

use super::authn::{AUTHENTICATED, UNAUTHENTICATED};
use super::authz::{self, Authorizer, Decision};
use super::request::{RequestInfo, ResourceRequest, unescape};
use super::user::UserInfo;
use crate::api::status::{Result, Status};

const EXTRA: &str = "impersonate-extra-";
const ACCOUNT: &str = "system:serviceaccount:";

/// The user the request acts as, when it names one and its sender may; the headers that name one come off.
pub async fn user(
    authorizer: &Authorizer,
    own: &UserInfo,
    headers: &mut HeaderMap,
) -> Result<Option<UserInfo>> {
    let named_by: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    if named_by.is_empty() {
        return Ok(None);
    }
    let other = named(headers);
    named_by.into_iter().for_each(|name| drop(headers.remove(name)));
    if other.name.is_empty() {
        return Err(Status::internal("requested an identity's parts without impersonating a user"));
    }
    for wanted in parts(&other) {
        let info = RequestInfo { verb: "impersonate".into(), path: String::new(), resource: Some(wanted) };
        match authorizer.authorize(own, &info).await {
            Decision::Allow { .. } => {}
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                return Err(authz::forbidden(own, &info, &reason));
            }
        }
    }
    Ok(Some(completed(other)))
}

/// The identity the headers name.
fn named(headers: &HeaderMap) -> UserInfo {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let first = |name: &str| texts(name).into_iter().next().unwrap_or_default();
    let extra =
        headers.keys().filter_map(|header| Some((header.as_str(), header.as_str().strip_prefix(EXTRA)?)));
    UserInfo {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: texts("impersonate-group"),
        extra: extra.map(|(header, key)| (unescape(key), texts(header))).collect(),
    }
}

/// What is asked of the authorizer, one question for each part of the identity.
fn parts(other: &UserInfo) -> Vec<ResourceRequest> {
    let one = |group: &str, resource: &str, name: &str| ResourceRequest {
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        name: name.into(),
        ..Default::default()
    };
    let mut wanted = vec![match account(&other.name) {
        Some((namespace, name)) => {
            ResourceRequest { namespace: namespace.into(), ..one("", "serviceaccounts", name) }
        }
        None => one("", "users", &other.name),
    }];
    wanted.extend(other.groups.iter().map(|group| one("", "groups", group)));
    if !other.uid.is_empty() {
        wanted.push(one("authentication.k8s.io", "uids", &other.uid));
    }
    for (key, values) in &other.extra {
        wanted.extend(values.iter().map(|value| ResourceRequest {
            subresource: key.clone(),
            ..one("authentication.k8s.io", "userextras", value)
        }));
    }
    wanted
}

fn account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(ACCOUNT)?.split_once(':')
}

/// Adds the groups that go without saying.
fn completed(mut other: UserInfo) -> UserInfo {
    if let (Some((namespace, _)), true) = (account(&other.name), other.groups.is_empty()) {
        other.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let known = other.in_group(AUTHENTICATED) || other.in_group(UNAUTHENTICATED);
    if !known {
        let group = if other.name == "system:anonymous" { UNAUTHENTICATED } else { AUTHENTICATED };
        other.groups.push(group.into());
    }
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_asked_for_by_its_namespace_and_gets_its_groups() {
        let other = UserInfo { name: "system:serviceaccount:a:b".into(), ..Default::default() };
        let asked = &parts(&other)[0];
        assert_eq!(
            (asked.resource.as_str(), asked.namespace.as_str(), asked.name.as_str()),
            ("serviceaccounts", "a", "b")
        );
        assert_eq!(
            completed(other).groups,
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
    }

    #[test]
    fn every_part_of_an_identity_is_asked_for() {
        let extra = [("scopes".to_owned(), vec!["x".to_owned()])].into();
        let other = UserInfo { name: "joe".into(), uid: "1".into(), groups: vec!["g".into()], extra };
        let asked: Vec<String> =
            parts(&other).iter().map(|part| format!("{}/{}", part.resource, part.name)).collect();
        assert_eq!(asked, ["users/joe", "groups/g", "uids/1", "userextras/x"]);
    }
}
