//! MutatingAdmissionPolicy: what is changed in what others write, by expressions.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ok, refused};
use crate::kit::clients;
use crate::kit::eventually;
use crate::kit::server::ApiServer;

const POLICIES: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: marked.example.com}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}]
  matchConditions: [{name: not-ours, expression: "object.metadata.name != 'ours'"}]
  variables: [{name: mark, expression: "'by-' + request.userInfo.username"}]
  reinvocationPolicy: IfNeeded
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: "Object{metadata: Object.metadata{labels: {'mark': variables.mark}}}"
  - patchType: JSONPatch
    jsonPatch:
      expression: >-
        [JSONPatch{op: "add", path: "/metadata/labels/" + jsonpatch.escapeKey("example.com/mark"), value: "yes"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: marked}
spec: {policyName: marked.example.com}
"#;

#[test]
fn policies_change_what_is_written() {
    let server = ApiServer::start(&[], &[]);
    let listed = ok(&server, &["api-resources", "--api-group=admissionregistration.k8s.io"], "");
    assert!(listed.contains("mutatingadmissionpolicies"), "{listed}");
    let wrong = POLICIES.replace("Object.metadata{", "Object.spec{");
    let why = refused(&server, &["create", "-f", "-"], &wrong);
    assert!(why.contains("spec.mutations[0].applyConfiguration.expression: Invalid value"), "{why}");
    assert!(why.contains("unexpected type name \"Object.spec\", expected \"Object.metadata\""), "{why}");
    ok(&server, &["delete", "mutatingadmissionpolicybindings", "--all"], "");
    ok(&server, &["create", "-f", "-"], POLICIES);
    let labels = |name: &str| {
        let path = format!("/api/v1/namespaces/default/configmaps/{name}");
        server.root("GET", &path, &Value::Null)["metadata"]["labels"].clone()
    };
    eventually(Duration::from_secs(20), "the policy acts", || {
        let (code, _, stderr) = server.kubectl(clients::any(), &["create", "configmap", "one"], "");
        assert_eq!(code, 0, "{stderr}");
        let found = labels("one");
        ok(&server, &["delete", "configmap", "one"], "");
        if found == json!({"mark": "by-root", "example.com/mark": "yes"}) {
            Ok(())
        } else {
            Err(found.to_string())
        }
    });
    ok(&server, &["create", "configmap", "ours"], "");
    assert_eq!(labels("ours"), Value::Null, "the condition keeps it out");
    // One that cannot be applied refuses the write, unless it says that this does not matter.
    let broken = POLICIES.replace("value: \"yes\"", "value: object.data.missing");
    ok(&server, &["replace", "-f", "-"], &broken);
    let why = refused(&server, &["create", "configmap", "two"], "");
    let want = "policy 'marked.example.com' with binding 'marked' denied request: expression";
    assert!(why.contains(want), "{why}");
    ok(
        &server,
        &["replace", "-f", "-"],
        &broken.replace("  reinvocationPolicy", "  failurePolicy: Ignore\n  reinvocationPolicy"),
    );
    ok(&server, &["create", "configmap", "two"], "");
    assert_eq!(labels("two"), json!({"mark": "by-root"}));
}
