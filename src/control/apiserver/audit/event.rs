//! One line of the log: `audit.k8s.io/v1` Event, its fields in upstream's order.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::super::request::ResourceRequest;
use super::super::user::UserInfo;
use super::policy::Level;
use super::{Arrived, Stage};
use crate::api::status::Status;

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    kind: &'static str,
    api_version: &'static str,
    pub(super) level: Level,
    #[serde(rename = "auditID")]
    audit_id: String,
    pub(super) stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated_user: Option<User>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authentication_metadata: Option<Value>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_object: Option<Value>,
    request_received_timestamp: String,
    pub(super) stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// `authentication.k8s.io/v1` UserInfo.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

impl Event {
    pub(super) fn new(level: Level, request: &Arrived<'_>) -> Self {
        let header = |name: &str| {
            request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id: request.id.to_owned(),
            stage: Stage::RequestReceived,
            request_uri: request.uri.to_owned(),
            verb: request.info.verb.clone(),
            user: User::of(request.user),
            impersonated_user: None,
            authentication_metadata: None,
            source_ips: sources(&header("x-forwarded-for"), &header("x-real-ip"), request.from),
            user_agent: header("user-agent").chars().take(1024).collect(),
            object_ref: request.info.resource.as_ref().map(ObjectRef::of),
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: written(request.at),
            stage_timestamp: written(request.at),
            annotations: BTreeMap::new(),
        }
    }
}

impl User {
    pub(super) fn of(user: &UserInfo) -> Self {
        Self {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

impl ObjectRef {
    fn of(asked: &ResourceRequest) -> Self {
        Self {
            resource: asked.resource.clone(),
            namespace: asked.namespace.clone(),
            name: asked.name.clone(),
            uid: String::new(),
            api_group: asked.group.clone(),
            api_version: asked.version.clone(),
            resource_version: String::new(),
            subresource: asked.subresource.clone(),
        }
    }
}

/// Where a request says it comes from, and where its connection comes from (`utilnet.SourceIPs`).
fn sources(forwarded: &str, real: &str, from: Option<std::net::IpAddr>) -> Vec<String> {
    let address = |text: &str| text.trim().parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string());
    let mut all: Vec<String> = forwarded.split(',').filter_map(address).take(64).collect();
    let add = |all: &mut Vec<String>, ip: Option<String>| {
        if let Some(ip) = ip.filter(|ip| all.last() != Some(ip)) {
            all.push(ip);
        }
    };
    let real = address(real).filter(|ip| !all.contains(ip));
    add(&mut all, real);
    add(&mut all, from.map(|ip| ip.to_string()));
    all
}

/// A MicroTime.
pub(super) fn written(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// What an event keeps of an answer.
pub(super) fn status(code: u16, failure: Option<&Status>) -> Value {
    let mut kept = json!({"metadata": {}, "code": code});
    if let Some(failure) = failure {
        kept["status"] = json!("Failure");
        kept["message"] = json!(failure.message);
        if !failure.reason.is_empty() {
            kept["reason"] = json!(failure.reason);
        }
        if let Some(details) = &failure.details {
            kept["details"] = details.clone();
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_on_the_way_is_named_once() {
        let from = "192.0.2.11".parse().ok();
        assert_eq!(
            sources("10.0.0.1, junk, 10.0.0.2", "10.0.0.2", from),
            ["10.0.0.1", "10.0.0.2", "192.0.2.11"]
        );
        assert_eq!(sources("", "", from), ["192.0.2.11"]);
    }
}
