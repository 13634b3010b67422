//! Users' own kinds: a definition makes a kind that is read, checked, printed, scaled, explained, and goes again.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ok, refused};
use crate::kit::eventually;
use crate::kit::server::ApiServer;

const CRONTABS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What is to run, and when.
            required: [cronSpec]
            x-kubernetes-validations:
            - {rule: "!has(self.image) || self.replicas < 5", message: "an image runs fewer than five times"}
            - {rule: "self.cronSpec == oldSelf.cronSpec", message: "cronSpec never changes"}
            properties:
              cronSpec: {type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'}
              image: {type: string}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              items:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, value: {type: string}}
          status:
            type: object
            properties: {replicas: {type: integer}, labelSelector: {type: string}, phase: {type: string}}
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.labelSelector}
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

fn tab(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn a_defined_kind_is_a_kind_like_any_other() {
    let server = ApiServer::start(&[], &[]);
    let made = ok(&server, &["apply", "-f", "-"], CRONTABS);
    assert_eq!(made, "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created\n");
    let established =
        ["wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=30s"];
    ok(&server, &established, "");
    checked(&server);
    printed_and_scaled(&server);
    applied(&server);
    in_another_version(&server);
    watched(&server);
    gone(&server);
}

fn checked(server: &ApiServer) {
    ok(server, &["apply", "-f", "-"], &tab("one", "cronSpec: '* * * * */5'"));
    let one = server.root("GET", "/apis/stable.example.com/v1/namespaces/default/crontabs/one", &Value::Null);
    assert_eq!(one["spec"], json!({"cronSpec": "* * * * */5", "replicas": 1}));
    assert_eq!(one["metadata"]["generation"], 1);
    let why = refused(server, &["create", "-f", "-"], &tab("two", "cronSpec: '* *', replicas: 11"));
    for want in [
        r#"The CronTab "two" is invalid"#,
        r#"spec.cronSpec: Invalid value: "* *": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
        "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
    ] {
        assert!(why.contains(want), "{why}");
    }
    let why =
        refused(server, &["create", "-f", "-"], &tab("two", "cronSpec: '* * * * *', image: a, replicas: 7"));
    assert!(why.contains(r#"spec: Invalid value: "object": an image runs fewer than five times"#), "{why}");
    let patch = ["patch", "crontab", "one", "--type=merge", "-p", r#"{"spec": {"cronSpec": "1 1 1 1 1"}}"#];
    assert!(refused(server, &patch, "").contains("cronSpec never changes"));
    let strict = tab("two", "cronSpec: '* * * * *', imgae: x");
    let why = refused(server, &["create", "-f", "-"], &strict);
    assert!(why.contains(r#"unknown field "spec.imgae""#), "{why}");
    ok(server, &["create", "--validate=false", "-f", "-"], &strict);
    let two = server.root("GET", "/apis/stable.example.com/v1/namespaces/default/crontabs/two", &Value::Null);
    assert_eq!(two["spec"].get("imgae"), None, "what the schema does not know is pruned");
}

fn printed_and_scaled(server: &ApiServer) {
    let table = ok(server, &["get", "ct"], "");
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "SPEC", "REPLICAS", "AGE"]);
    assert!(table.contains("* * * * */5"), "{table}");
    assert!(ok(server, &["get", "all"], "").contains("crontab.stable.example.com/one"));
    assert!(ok(server, &["api-resources"], "").contains("crontabs"));
    let text = ok(server, &["explain", "crontab.spec"], "");
    assert!(text.contains("What is to run, and when.") && text.contains("cronSpec"), "{text}");
    ok(server, &["scale", "crontab", "one", "--replicas=3"], "");
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs/one";
    assert_eq!(server.root("GET", path, &Value::Null)["spec"]["replicas"], 3);
    let status = ["patch", "crontab", "one", "--subresource=status", "--type=merge"];
    let status =
        [&status[..], &["-p", r#"{"status": {"phase": "Running"}, "spec": {"replicas": 9}}"#]].concat();
    ok(server, &status, "");
    let one = server.root("GET", path, &Value::Null);
    assert_eq!((&one["status"]["phase"], &one["spec"]["replicas"]), (&json!("Running"), &json!(3)));
    assert_eq!(one["metadata"]["generation"], 2, "a status is no new generation");
    let wait = ["wait", "--for=jsonpath={.status.phase}=Running", "crontab/one", "--timeout=20s"];
    ok(server, &wait, "");
}

fn applied(server: &ApiServer) {
    let spec = |items: &str| tab("three", &format!("cronSpec: '* * * * *', items: [{items}]"));
    let apply = |manager: &str, text: &str| {
        let manager = format!("--field-manager={manager}");
        ok(server, &["apply", "--server-side", &manager, "-f", "-"], text)
    };
    apply("a", &spec("{name: p, value: '1'}"));
    apply("b", &spec("{name: q, value: '2'}"));
    apply("a", &spec(""));
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs/three";
    let three = server.root("GET", path, &Value::Null);
    assert_eq!(three["spec"]["items"], json!([{"name": "q", "value": "2"}]));
}

fn in_another_version(server: &ApiServer) {
    let path = "/apis/stable.example.com/v1beta1/namespaces/default/crontabs";
    let one = server.root("GET", &format!("{path}/one"), &Value::Null);
    assert_eq!(
        (&one["apiVersion"], &one["spec"]["replicas"]),
        (&json!("stable.example.com/v1beta1"), &json!(3))
    );
    let list = server.root("GET", path, &Value::Null);
    assert_eq!(list["items"][0]["apiVersion"], "stable.example.com/v1beta1");
    let old = tab("four", "cronSpec: x").replace("/v1", "/v1beta1");
    let (_, _, stderr) = server.kubectl(crate::kit::clients::any(), &["create", "-f", "-"], &old);
    assert!(stderr.contains("Warning: stable.example.com/v1beta1 CronTab is deprecated"), "{stderr}");
    let four =
        server.root("GET", "/apis/stable.example.com/v1/namespaces/default/crontabs/four", &Value::Null);
    assert_eq!(four["apiVersion"], "stable.example.com/v1");
}

fn watched(server: &ApiServer) {
    let path = "/apis/stable.example.com/v1beta1/namespaces/default/crontabs?watch=1&timeoutSeconds=1";
    let answer = server.ask(None, "GET", path, &[("Authorization", "Bearer root-token")], "");
    let first: Value = serde_json::from_str(answer.text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["type"], &first["object"]["apiVersion"]),
        (&json!("ADDED"), &json!("stable.example.com/v1beta1"))
    );
}

fn gone(server: &ApiServer) {
    let held = r#"{"metadata": {"finalizers": ["example.com/held"]}}"#;
    ok(server, &["patch", "crontab", "one", "--type=merge", "-p", held], "");
    ok(server, &["delete", "crd", "crontabs.stable.example.com", "--wait=false"], "");
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/crontabs.stable.example.com";
    let one = "/apis/stable.example.com/v1/namespaces/default/crontabs/one";
    eventually(Duration::from_secs(30), "the others are deleted", || {
        let list = server.root("GET", "/apis/stable.example.com/v1/crontabs", &Value::Null);
        let count = list["items"].as_array().map_or(0, Vec::len);
        if count == 1 { Ok(()) } else { Err(format!("{count} are left")) }
    });
    let marked = server.root("GET", definition, &Value::Null);
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert!(refused(server, &["create", "-f", "-"], &tab("late", "cronSpec: '* * * * *'")).contains("not"));
    server.root("PUT", one, &{
        let mut one = server.root("GET", one, &Value::Null);
        one["metadata"]["finalizers"] = Value::Null;
        one
    });
    eventually(Duration::from_secs(30), "the definition is gone", || {
        let answer = server.ask(None, "GET", definition, &[("Authorization", "Bearer root-token")], "");
        if answer.code == 404 { Ok(()) } else { Err(answer.text) }
    });
    // The second is what a kubectl says that still has the kind in its discovery cache.
    let text = refused(server, &["get", "crontabs"], "");
    let said =
        ["the server doesn't have a resource type", "the server could not find the requested resource"];
    assert!(said.iter().any(|said| text.contains(said)), "{text}");
}
