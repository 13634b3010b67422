//! The Webhook authorizer: asks another server by SubjectAccessReview
//! (`apiserver/plugin/pkg/authorizer/webhook`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::cel::Expression;
use super::super::lookup::text;
use super::super::remote::Remote;
use super::super::request::RequestInfo;
use super::super::user::UserInfo;
use super::Decision;

/// Answers kept; more start the memory anew.
const CACHED: usize = 8192;
/// A question longer than this is asked each time (`shouldCache`).
const LONGEST_KEY: usize = 10_000;

/// What no answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnError {
    NoOpinion,
    Deny,
}

/// How one webhook is asked.
#[derive(Debug, Clone)]
pub(super) struct WebhookOptions {
    /// `v1` or `v1beta1`.
    pub(super) version: String,
    pub(super) allowed_ttl: Duration,
    pub(super) denied_ttl: Duration,
    pub(super) on_error: OnError,
    /// All of these must hold of the review's spec, or the webhook is not asked.
    pub(super) conditions: Arc<Vec<Expression>>,
}

pub(super) struct WebhookAuthorizer {
    remote: Remote,
    options: WebhookOptions,
    known: Mutex<HashMap<String, (Instant, Value)>>,
}

impl WebhookAuthorizer {
    pub(super) fn new(remote: Remote, options: WebhookOptions) -> Self {
        Self { remote, options, known: Mutex::default() }
    }

    pub(super) async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        let spec = question(user, info, &self.options.version);
        if let Some(decision) = self.skips(&spec) {
            return decision;
        }
        let key = spec.to_string();
        if let Some(status) = self.remembered(&key) {
            return verdict(&status).unwrap_or_else(Decision::no_opinion);
        }
        let review = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": format!("authorization.k8s.io/{}", self.options.version),
            "metadata": {"creationTimestamp": null},
            "spec": spec,
            "status": {"allowed": false},
        });
        let answer = match self.remote.post(&review).await {
            Ok(answer) => answer["status"].clone(),
            Err(error) => return self.failed(&error),
        };
        let decision = match verdict(&answer) {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(error, "The authorization webhook's answer makes no sense");
                return Decision::Failed { error, denied: false };
            }
        };
        let life = if decision.is_allowed() { self.options.allowed_ttl } else { self.options.denied_ttl };
        self.remember(key, answer, life);
        decision
    }

    /// The decision without asking, when a condition does not hold or cannot be told.
    fn skips(&self, spec: &Value) -> Option<Decision> {
        if self.options.conditions.is_empty() {
            return None;
        }
        let request = complete(spec);
        let mut fault = None;
        for condition in self.options.conditions.iter() {
            match condition.holds("request", &request) {
                Ok(true) => {}
                // One that is false decides, whatever is wrong with others.
                Ok(false) => return Some(Decision::no_opinion("")),
                Err(error) => fault = Some(error),
            }
        }
        let error = fault?;
        tracing::error!(error, "A match condition of the authorization webhook could not be evaluated");
        Some(Decision::Failed { error, denied: self.options.on_error == OnError::Deny })
    }

    fn failed(&self, error: &super::super::remote::RemoteError) -> Decision {
        // Its text has the cause already.
        let error = error.to_string();
        tracing::error!(error, "Failed to make webhook authorizer request");
        Decision::Failed { error, denied: self.options.on_error == OnError::Deny }
    }

    fn remembered(&self, key: &str) -> Option<Value> {
        let known = self.known.lock().expect("nothing panics while holding the lock");
        known.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, status)| status.clone())
    }

    fn remember(&self, key: String, status: Value, life: Duration) {
        if key.len() > LONGEST_KEY || life.is_zero() {
            return;
        }
        let mut known = self.known.lock().expect("nothing panics while holding the lock");
        if known.len() >= CACHED {
            known.clear();
        }
        known.insert(key, (Instant::now() + life, status));
    }
}

fn verdict(status: &Value) -> Result<Decision, String> {
    let reason = text(status, "/reason").to_owned();
    match (status["allowed"] == true, status["denied"] == true) {
        (true, true) => Err("webhook subject access review returned both allow and deny response".into()),
        (false, true) => Ok(Decision::Deny { reason }),
        (true, false) => Ok(Decision::Allow { reason: reason.into() }),
        (false, false) => Ok(Decision::NoOpinion { reason }),
    }
}

/// The spec as a typed object shows itself to an expression: what is not set is empty, not absent.
fn complete(spec: &Value) -> Value {
    let mut whole = json!({"user": "", "uid": "", "groups": [], "extra": {}});
    let with = |whole: &mut Value, part: &Value| {
        for (name, value) in part.as_object().into_iter().flatten() {
            whole[name] = value.clone();
        }
    };
    with(&mut whole, spec);
    if let Some(groups) = spec.get("group") {
        whole["groups"] = groups.clone();
    }
    if let Some(asked) = spec.get("resourceAttributes") {
        let mut full = json!({
            "namespace": "", "verb": "", "group": "", "version": "", "resource": "", "subresource": "", "name": "",
        });
        with(&mut full, asked);
        whole["resourceAttributes"] = full;
    }
    whole
}

/// The review's spec.
fn question(user: &UserInfo, info: &RequestInfo, version: &str) -> Value {
    let mut spec = json!({});
    let mut set = |field: &str, value: &str| {
        if !value.is_empty() {
            spec[field] = json!(value);
        }
    };
    set("user", &user.name);
    set("uid", &user.uid);
    if !user.groups.is_empty() {
        // The old version's field was singular.
        spec[if version == "v1beta1" { "group" } else { "groups" }] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    match &info.resource {
        None => spec["nonResourceAttributes"] = json!({"path": info.path, "verb": info.verb}),
        Some(resource) => {
            let mut asked = json!({});
            for (field, value) in [
                ("namespace", &resource.namespace),
                ("verb", &info.verb),
                ("group", &resource.group),
                ("version", &resource.version),
                ("resource", &resource.resource),
                ("subresource", &resource.subresource),
                ("name", &resource.name),
            ] {
                if !value.is_empty() {
                    asked[field] = json!(value);
                }
            }
            for (field, selector) in
                [("fieldSelector", &resource.field_selector), ("labelSelector", &resource.label_selector)]
            {
                if !selector.is_empty() {
                    asked[field] = json!({"rawSelector": selector});
                }
            }
            spec["resourceAttributes"] = asked;
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_and_denied_at_once_is_no_verdict() {
        assert!(verdict(&json!({"allowed": true, "denied": true})).is_err());
        assert_eq!(
            verdict(&json!({"denied": true, "reason": "no"})),
            Ok(Decision::Deny { reason: "no".into() })
        );
        assert_eq!(verdict(&json!({})), Ok(Decision::no_opinion("")));
    }
}
