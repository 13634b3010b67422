//! What an access review may ask (`pkg/apis/authorization/validation`).

use serde_json::Value;

use super::super::lookup::text;
use super::{access, strings};
use crate::api::status::{Cause, Result, Status};

/// Refuses a review that makes no sense; `namespace` is where a local one was sent.
///
/// # Errors
/// 422 with every fault.
pub(super) fn check(kind: &str, review: &Value, namespace: &str) -> Result<()> {
    let spec = &review["spec"];
    let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut causes = Vec::new();
    match (resource.is_null(), other.is_null()) {
        (false, false) => {
            let why = "cannot be specified in combination with resourceAttributes";
            causes.push(Cause::invalid("spec.nonResourceAttributes", other, why));
        }
        (true, true) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            causes.push(Cause::invalid("spec.resourceAttributes", &Value::Null, why));
        }
        _ => {}
    }
    if kind != "SelfSubjectAccessReview"
        && text(review, "/spec/user").is_empty()
        && strings(&spec["groups"]).is_empty()
    {
        let why = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &Value::from(""), why));
    }
    for (name, keyed) in [("fieldSelector", false), ("labelSelector", true)] {
        selector(&resource[name], &format!("spec.resourceAttributes.{name}"), keyed, &mut causes);
    }
    let local = kind == "LocalSubjectAccessReview";
    if !is_bare(&review["metadata"], local) {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        causes.push(Cause::invalid("metadata", &review["metadata"], why));
    }
    if local {
        here(resource, other, namespace, &mut causes);
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(access::GROUP, kind, "", &causes)),
    }
}

/// A local review is about the namespace it was sent to.
fn here(resource: &Value, other: &Value, namespace: &str, causes: &mut Vec<Cause>) {
    let asked = &resource["namespace"];
    if !resource.is_null() && asked.as_str().unwrap_or_default() != namespace {
        let why = "must match metadata.namespace";
        causes.push(Cause::invalid("spec.resourceAttributes.namespace", asked, why));
    }
    if !other.is_null() {
        let why = "disallowed on this kind of request";
        causes.push(Cause::invalid("spec.nonResourceAttributes", other, why));
    }
}

/// Whether metadata says nothing; clients in Go send `creationTimestamp: null`.
fn is_bare(metadata: &Value, with_namespace: bool) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(value) => !value,
    };
    metadata.as_object().into_iter().flatten().all(|(name, value)| {
        empty(value) || name == "managedFields" || (with_namespace && name == "namespace")
    })
}

fn selector(selector: &Value, field: &str, labels: bool, causes: &mut Vec<Cause>) {
    if selector.is_null() {
        return;
    }
    let raw = &selector["rawSelector"];
    let terms = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    match (raw.as_str().unwrap_or_default().is_empty(), terms.is_empty()) {
        (false, false) => {
            let why = "may not specified at the same time as requirements";
            causes.push(Cause::invalid(format!("{field}.rawSelector"), raw, why));
        }
        (true, true) => {
            let why = format!("when {field} is specified, requirements or rawSelector is required");
            causes.push(Cause::required(format!("{field}.requirements"), &why));
        }
        _ => {}
    }
    for (at, term) in terms.iter().enumerate() {
        let field = format!("{field}.requirements[{at}]");
        let values = strings(&term["values"]);
        match term["operator"].as_str() {
            Some("In" | "NotIn") if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                causes.push(Cause::required(format!("{field}.values"), why));
            }
            Some("Exists" | "DoesNotExist") if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.push(Cause::forbidden(format!("{field}.values"), why));
            }
            // Operators of newer clients are let through, as upstream lets them.
            _ => {}
        }
        // A label's name has a grammar, which authorizers read for themselves.
        if !labels && text(term, "/key").is_empty() {
            causes.push(Cause::required(format!("{field}.key"), "must be specified"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(kind: &str, review: Value) -> String {
        check(kind, &review, "t1").map_or_else(|status| status.message, |()| "fine".into())
    }

    #[test]
    fn a_review_that_makes_no_sense_is_refused_in_upstreams_words() {
        let pods = |more: Value| {
            let mut attributes = json!({"verb": "list", "resource": "pods"});
            attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"metadata": {"creationTimestamp": null}, "spec": {"user": "a", "resourceAttributes": attributes}})
        };
        let kind = "SubjectAccessReview";
        assert_eq!(said(kind, pods(json!({}))), "fine");
        for (review, part) in [
            (
                pods(json!({"fieldSelector": {}})),
                "spec.resourceAttributes.fieldSelector.requirements: Required value",
            ),
            (
                pods(
                    json!({"fieldSelector": {"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]}}),
                ),
                "rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements",
            ),
            (
                pods(json!({"labelSelector": {"requirements": [{"key": "a", "operator": "In"}]}})),
                "labelSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ),
            (
                json!({"metadata": {"name": "x"}, "spec": {"user": "a", "nonResourceAttributes": {"path": "/"}}}),
                "metadata: Invalid value: {\"name\":\"x\"}: must be empty",
            ),
            (
                json!({"spec": {"user": "a", "nonResourceAttributes": {"path": "/"}, "resourceAttributes": {}}}),
                "spec.nonResourceAttributes: Invalid value: {\"path\":\"/\"}: cannot be specified in combination with",
            ),
        ] {
            let text = said(kind, review);
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_local_review_is_about_its_own_namespace() {
        let review = |namespace: &str| {
            let attributes = json!({"verb": "list", "resource": "pods", "namespace": namespace});
            json!({"metadata": {"namespace": "t1"}, "spec": {"user": "a", "resourceAttributes": attributes}})
        };
        assert_eq!(said("LocalSubjectAccessReview", review("t1")), "fine");
        let text = said("LocalSubjectAccessReview", review("t2"));
        assert!(text.ends_with("namespace: Invalid value: \"t2\": must match metadata.namespace"), "{text}");
    }
}
