//! SubjectAccessReview and its siblings: may this user do that?

use serde_json::{Value, json};

use super::super::authz::{Authorizer, Decision};
use super::super::lookup::text;
use super::super::request::{RequestInfo, ResourceRequest};
use super::super::user::UserInfo;
use super::strings;

pub(super) const GROUP: &str = "authorization.k8s.io";

/// The user a review is about.
pub(super) fn subject(review: &Value) -> UserInfo {
    let spec = &review["spec"];
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: text(review, "/spec/user").into(),
        uid: text(review, "/spec/uid").into(),
        groups: strings(&spec["groups"]),
        extra: extra.map(|(name, values)| (name.clone(), strings(values))).collect(),
    }
}

/// The verdict on a review that was found to make sense.
pub(super) async fn status(authorizer: &Authorizer, review: &Value, user: &UserInfo) -> Value {
    let info = match &review["spec"]["resourceAttributes"] {
        Value::Object(_) => resource(review),
        _ => RequestInfo {
            verb: text(review, "/spec/nonResourceAttributes/verb").into(),
            path: text(review, "/spec/nonResourceAttributes/path").into(),
            resource: None,
        },
    };
    let mut status = json!({"allowed": false});
    let reason = match authorizer.authorize(user, &info).await {
        Decision::Allow { reason } => {
            status["allowed"] = json!(true);
            reason.to_string()
        }
        Decision::Deny { reason } => {
            status["denied"] = json!(true);
            reason
        }
        Decision::NoOpinion { reason } => reason,
        Decision::Failed { error, denied } => {
            if denied {
                status["denied"] = json!(true);
            }
            status["evaluationError"] = json!(error);
            String::new()
        }
    };
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    status
}

fn resource(review: &Value) -> RequestInfo {
    let field = |name: &str| text(review, &format!("/spec/resourceAttributes/{name}")).to_owned();
    let resource = ResourceRequest {
        group: field("group"),
        version: field("version"),
        namespace: field("namespace"),
        resource: field("resource"),
        subresource: field("subresource"),
        name: field("name"),
        field_selector: selector(review, "fieldSelector"),
        label_selector: selector(review, "labelSelector"),
        ..ResourceRequest::default()
    };
    RequestInfo { verb: field("verb"), path: String::new(), resource: Some(resource) }
}

/// A selector as a client would write it; of structured ones, the terms that pin one value.
fn selector(review: &Value, name: &str) -> String {
    let attributes = &review["spec"]["resourceAttributes"][name];
    if let Some(raw) = attributes["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let terms = attributes["requirements"].as_array().into_iter().flatten().filter_map(|term| {
        match (&term["operator"], strings(&term["values"]).as_slice()) {
            (Value::String(operator), [value]) if operator == "In" => {
                Some(format!("{}={value}", text(term, "/key")))
            }
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}
