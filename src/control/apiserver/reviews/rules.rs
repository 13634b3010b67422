//! SelfSubjectRulesReview: everything I may do in a namespace (`kubectl auth can-i --list`).

use serde_json::{Value, json};

use super::super::authz::{Authorizer, Rule};
use super::super::lookup::text;
use super::super::user::UserInfo;
use crate::api::status::{Result, Status};

pub(super) fn status(authorizer: &Authorizer, review: &Value, user: &UserInfo) -> Result<Value> {
    let namespace = text(review, "/spec/namespace");
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, gaps) = authorizer.rules_for(user, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules.iter().flat_map(|rules| rules.iter()) {
        match rule.resources.is_empty() {
            false => resources.push(resource(rule)),
            true => paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls})),
        }
    }
    let mut status =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": !gaps.is_empty()});
    if !gaps.is_empty() {
        status["evaluationError"] = json!(gaps.join(", "));
    }
    Ok(status)
}

fn resource(rule: &Rule) -> Value {
    let mut object = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
    if !rule.resource_names.is_empty() {
        object["resourceNames"] = json!(rule.resource_names);
    }
    object
}
