//! The audit log: a policy's levels and stages as lines of JSON.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::eventually;
use crate::kit::server::ApiServer;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/version"]
- level: RequestResponse
  resources: [{group: "", resources: [configmaps]}]
- level: Metadata
"#;

fn events(server: &ApiServer) -> Vec<Value> {
    let text = std::fs::read_to_string(server.file("audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn find(server: &ApiServer, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(Duration::from_secs(30), what, || {
        events(server).into_iter().find(&wanted).ok_or_else(|| format!("{:#?}", events(server)))
    })
}

#[test]
fn who_did_what_and_what_they_were_told_is_on_disk() {
    let server = ApiServer::start(
        &[("policy.yaml", POLICY)],
        &[
            "--authorization-mode=RBAC",
            "--audit-policy-file={dir}/policy.yaml",
            "--audit-log-path={dir}/audit.log",
        ],
    );
    let maps = "/api/v1/namespaces/default/configmaps";
    server.root("POST", maps, &json!({"metadata": {"name": "a"}, "data": {"x": "y"}}));
    let made = find(&server, "the creation", |event| {
        event["verb"] == "create" && event["objectRef"]["resource"] == "configmaps"
    });
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&made["level"], &made["stage"]), (&json!("RequestResponse"), &json!("ResponseComplete")));
    assert_eq!(made["user"]["username"], "root");
    assert_eq!(made["requestObject"]["data"], json!({"x": "y"}));
    assert_eq!(made["responseObject"]["metadata"]["name"], "a");
    assert_eq!(made["responseStatus"]["code"], 201);
    assert_eq!(made["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(made["sourceIPs"], json!(["127.0.0.1"]));

    let headers =
        [("Authorization", "Bearer jane-token"), ("Audit-ID", "my-own-id"), ("X-Forwarded-For", "192.0.2.7")];
    let refused = server.ask(None, "GET", "/api/v1/namespaces/default/secrets", &headers, "");
    assert!(
        refused.code == 403 && refused.head.to_lowercase().contains("audit-id: my-own-id"),
        "{refused:?}"
    );
    let refused = find(&server, "the refusal", |event| event["auditID"] == "my-own-id");
    assert_eq!((&refused["level"], &refused["verb"]), (&json!("Metadata"), &json!("list")));
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["sourceIPs"], json!(["192.0.2.7", "127.0.0.1"]));

    assert_eq!(server.ask(None, "GET", "/api", &[("Authorization", "Bearer junk")], "").code, 401);
    let nobody = find(&server, "the stranger", |event| event["responseStatus"]["code"] == 401);
    assert_eq!(nobody["user"], json!({}));
    assert_eq!(nobody["responseStatus"]["message"], "Authentication failed, attempted: bearer");

    let acts = [("Authorization", "Bearer root-token"), ("Impersonate-User", "joe")];
    server.ask(None, "GET", "/api/v1/nodes", &acts, "");
    let acted = find(&server, "the impersonation", |event| event["impersonatedUser"]["username"] == "joe");
    assert_eq!(acted["user"]["username"], "root");

    assert!(
        events(&server).iter().all(|event| event["requestURI"] != "/version"),
        "the policy leaves it out"
    );
    assert!(events(&server).iter().all(|event| event["stage"] != "RequestReceived"));
    assert!(!std::fs::read_to_string(server.file("audit.log")).unwrap().contains("root-token"));
}

#[test]
fn in_mode_blocking_strict_nothing_is_done_that_cannot_be_written_down() {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
                  - {level: None, nonResourceURLs: [\"*\"]}\n- {level: Metadata, users: [jane]}\n- {level: None}\n";
    let start = |mode: &str| {
        let mode = format!("--audit-log-mode={mode}");
        ApiServer::start(
            &[("policy.yaml", policy)],
            &[
                "--authorization-mode=RBAC",
                "--audit-policy-file={dir}/policy.yaml",
                "--audit-log-path=/dev/full",
                &mode,
            ],
        )
    };
    let jane = [("Authorization", "Bearer jane-token")];
    let path = "/api/v1/namespaces/default/secrets";
    let refused = start("blocking-strict").ask(None, "GET", path, &jane, "");
    let want = format!("Internal Server Error: {path:?}: failed to store audit event");
    assert_eq!((refused.code, refused.text.trim_end()), (500, want.as_str()));
    assert_eq!(start("blocking").ask(None, "GET", path, &jane, "").code, 403, "the default lets it pass");
}
