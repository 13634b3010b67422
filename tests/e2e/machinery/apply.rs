//! Server-side apply: owners of fields, conflicts, what is given up, and the way from client-side apply.

use serde_json::{Value, json};

use super::{ok_of, refused};
use crate::kit::clients;
use crate::kit::server::ApiServer;

fn deployment(replicas: &str, label: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{{label}}}}}
spec:
  {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - {{name: web, image: minilab/toolbox, ports: [{{containerPort: 80}}]}}
"
    )
}

fn get(server: &ApiServer, path: &str) -> Value {
    server.root("GET", path, &Value::Null)
}

/// The fields of one manager.
fn fields<'a>(object: &'a Value, manager: &str, operation: &str) -> Option<&'a Value> {
    let mut all = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let own = all.find(|entry| entry["manager"] == manager && entry["operation"] == operation)?;
    Some(&own["fieldsV1"])
}

#[test]
fn appliers_own_what_they_apply_and_are_told_of_conflicts() {
    let server = ApiServer::start(&[], &[]);
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    for kubectl in clients::both() {
        let apply = |extra: &[&str], input: &str| {
            let arguments = [&["apply", "--server-side", "-f", "-"], extra].concat();
            ok_of(&server, kubectl, &arguments, input)
        };
        assert_eq!(
            apply(&[], &deployment("replicas: 1", "a: b")),
            "deployment.apps/web serverside-applied\n"
        );
        let made = get(&server, path);
        let own = fields(&made, "kubectl", "Apply").unwrap();
        let port = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
        let container = &own["f:spec"]["f:template"]["f:spec"]["f:containers"][r#"k:{"name":"web"}"#];
        assert_eq!(container["f:ports"][port], json!({".": {}, "f:containerPort": {}}), "{own}");
        assert_eq!(own["f:spec"]["f:replicas"], json!({}));
        // Nothing changes: no new version.
        apply(&[], &deployment("replicas: 1", "a: b"));
        assert_eq!(get(&server, path)["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
        ok_of(&server, kubectl, &["scale", "deployment", "web", "--replicas=4"], "");
        let arguments = ["apply", "--server-side", "-f", "-"];
        let (code, _, stderr) = server.kubectl(kubectl, &arguments, &deployment("replicas: 2", "a: b"));
        let want = r#"Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas"#;
        assert!(code != 0 && stderr.contains(want), "{stderr}");
        apply(&["--force-conflicts"], &deployment("replicas: 2", "a: b"));
        assert_eq!(get(&server, path)["spec"]["replicas"], 2);
        // What is no longer in the file goes; what only the server set by default stays.
        apply(&[], &deployment("", "c: d"));
        let after = get(&server, path);
        assert_eq!(after["metadata"]["labels"], json!({"c": "d"}));
        assert_eq!(after["spec"]["replicas"], 1);
        assert_eq!(after["spec"]["template"]["spec"]["restartPolicy"], "Always");
        ok_of(&server, kubectl, &["delete", "deployment", "web"], "");
    }
}

#[test]
fn client_side_apply_is_taken_over_and_mistakes_are_named() {
    let server = ApiServer::start(&[], &[]);
    let map =
        |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map}}\ndata: {{{data}}}\n");
    for kubectl in clients::both() {
        ok_of(&server, kubectl, &["apply", "-f", "-"], &map("a: '1', b: '2'"));
        let path = "/api/v1/namespaces/default/configmaps/map";
        assert!(fields(&get(&server, path), "kubectl-client-side-apply", "Update").is_some());
        ok_of(&server, kubectl, &["apply", "--server-side", "-f", "-"], &map("a: '1'"));
        let after = get(&server, path);
        assert_eq!(after["data"], json!({"a": "1"}), "what the file no longer has goes");
        assert!(fields(&after, "kubectl-client-side-apply", "Update").is_none());
        let (code, diff, _) = server.kubectl(kubectl, &["diff", "--server-side", "-f", "-"], &map("a: '7'"));
        assert!(code == 1 && diff.contains("+  a: \"7\""), "{diff}");
        ok_of(&server, kubectl, &["delete", "configmap", "map"], "");
    }
    let wrong = map("a: '1'") + "dota: {}\n";
    let why = refused(&server, &["apply", "--server-side", "-f", "-"], &wrong);
    let want = "failed to create typed patch object (default/map; v1, Kind=ConfigMap): .dota: field not declared in schema";
    assert!(why.contains(want), "{why}");
    let nameless = server.ask(
        None,
        "PATCH",
        "/api/v1/namespaces/default/configmaps/map",
        &[("Authorization", "Bearer root-token"), ("Content-Type", "application/apply-patch+yaml")],
        "",
    );
    assert_eq!(nameless.code, 422, "{}", nameless.text);
    assert!(nameless.text.contains("fieldManager: Required value: is required for apply patch"));
}
