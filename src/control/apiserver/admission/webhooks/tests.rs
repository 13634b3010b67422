use serde_json::json;

use super::ask;
use super::matching::covers;
use crate::control::apiserver::admission::{Attributes, Operation};
use crate::control::apiserver::user::UserInfo;

fn write(resource: &str, subresource: &str, namespace: &str) -> Attributes {
    Attributes {
        user: UserInfo::default(),
        operation: Operation::Create,
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: "web".into(),
        object: None,
        old: None,
        dry_run: false,
        annotations: Vec::new(),
        warnings: Vec::new(),
    }
}

#[test]
fn rules_cover_operations_groups_resources_and_scopes() {
    let rule = |resources: &str, scope: &str| json!({"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["*"], "resources": [resources], "scope": scope});
    for (resources, scope, subresource, namespace, want) in [
        ("deployments", "*", "", "a", true),
        ("deployments", "*", "scale", "a", false),
        ("deployments/*", "*", "scale", "a", true),
        ("*/scale", "*", "scale", "a", true),
        ("*/*", "*", "scale", "a", true),
        ("*", "*", "", "a", true),
        ("pods", "*", "", "a", false),
        ("deployments", "Cluster", "", "a", false),
        ("deployments", "Namespaced", "", "a", true),
        ("deployments", "Cluster", "", "", true),
    ] {
        let write = write("deployments", subresource, namespace);
        assert_eq!(covers(&rule(resources, scope), &write), want, "{resources} {scope} {subresource}");
    }
    let other =
        json!({"operations": ["DELETE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]});
    assert!(!covers(&other, &write("deployments", "", "a")));
}

#[test]
fn answers_are_read_and_refusals_told_in_upstreams_words() {
    let review = |response| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    let answer = ask::read(
        &review(json!({"uid": "7", "allowed": false, "status": {"message": "no", "code": 403}})),
        "7",
    );
    let status = answer.unwrap().refusal("a.example.com");
    assert_eq!(
        (status.code, status.message.as_str()),
        (403, "admission webhook \"a.example.com\" denied the request: no")
    );
    let bare = ask::read(&review(json!({"uid": "7", "allowed": false})), "7").unwrap().refusal("a");
    assert_eq!(
        (bare.code, bare.message.as_str()),
        (400, "admission webhook \"a\" denied the request without explanation")
    );
    let patched = ask::read(
        &review(json!({"uid": "7", "allowed": true, "patchType": "JSONPatch", "patch": "W10="})),
        "7",
    );
    assert_eq!(patched.unwrap().patch.as_deref(), Some(&b"[]"[..]));
    for wrong in [
        review(json!({"uid": "8", "allowed": true})),
        review(json!(null)),
        json!({"response": {"uid": "7"}}),
        review(json!({"uid": "7", "patch": "W10=", "allowed": true})),
    ] {
        assert!(
            ask::read(&wrong, "7").unwrap_err().starts_with("received invalid webhook response"),
            "{wrong}"
        );
    }
}
