//! Aggregated API servers: another server's kinds are found, read, written and watched as our own.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ok, ok_of};
use crate::kit::clients;
use crate::kit::eventually;
use crate::kit::server::ApiServer;

const COWS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: cows.farm.example.com}
spec:
  group: farm.example.com
  scope: Namespaced
  names: {plural: cows, singular: cow, kind: Cow}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, description: How a cow is, properties: {milk: {type: integer}}}}}}
";

const COW: &str = "apiVersion: farm.example.com/v1\nkind: Cow\nmetadata: {name: bella}\nspec: {milk: 7}\n";

fn registration(port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: farm}}
spec: {{type: ExternalName, externalName: 127.0.0.1}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.farm.example.com}}
spec:
  group: farm.example.com
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 15
  insecureSkipTLSVerify: true
  service: {{namespace: default, name: farm, port: {port}}}
"
    )
}

/// The first row of `kubectl get apiservices` for a name, without its age.
fn row(server: &ApiServer, name: &str) -> String {
    let table = ok(server, &["get", "apiservices"], "");
    let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    words[1..words.len() - 1].join(" ")
}

#[test]
fn another_servers_kinds_are_served_as_our_own() {
    let rbac = "--authorization-mode=RBAC";
    let farm = ApiServer::start(&[], &[rbac]);
    ok(&farm, &["create", "-f", "-"], COWS);
    let front = farm.front.client("front-proxy-client", "");
    let server = ApiServer::start(
        &[("proxy.crt", &front.cert), ("proxy.key", &front.key)],
        &[rbac, "--proxy-client-cert-file={dir}/proxy.crt", "--proxy-client-key-file={dir}/proxy.key"],
    );
    eventually(Duration::from_secs(30), "what is served here is Local", || match row(&server, "v1.apps") {
        own if own == "Local True" => Ok(()),
        own => Err(own),
    });
    assert_eq!(row(&server, "v1beta1.metrics.k8s.io"), "Local True");
    ok(&server, &["create", "-f", "-"], &registration(farm.address.port()));
    ok(
        &server,
        &["wait", "--for=condition=Available", "apiservice/v1.farm.example.com", "--timeout=60s"],
        "",
    );
    assert_eq!(row(&server, "v1.farm.example.com"), "default/farm True");
    used(&server, &farm);
    asked_by_somebody_else(&server, &farm);
    drop(farm);
    let gone =
        eventually(Duration::from_secs(60), "it is missed", || match row(&server, "v1.farm.example.com") {
            own if own.contains("False") => Ok(own),
            own => Err(own),
        });
    assert_eq!(gone, "default/farm False (FailedDiscoveryCheck)");
    let path = "/apis/farm.example.com/v1/namespaces/default/cows";
    let answer = server.ask(None, "GET", path, &[("Authorization", "Bearer root-token")], "");
    assert_eq!((answer.code, answer.text.as_str()), (503, "service unavailable\n"));
    // What is answered here goes on.
    ok(&server, &["get", "namespaces"], "");
}

fn used(server: &ApiServer, farm: &ApiServer) {
    for kubectl in clients::both() {
        assert!(
            ok_of(server, kubectl, &["api-resources", "--api-group=farm.example.com"], "").contains("cows")
        );
    }
    ok(server, &["create", "-f", "-"], COW);
    assert!(ok(server, &["get", "cows"], "").contains("bella"));
    let text = ok(server, &["explain", "cow.spec"], "");
    assert!(text.contains("How a cow is") && text.contains("milk"), "{text}");
    let there = farm.root("GET", "/apis/farm.example.com/v1/namespaces/default/cows/bella", &Value::Null);
    assert_eq!(there["spec"], json!({"milk": 7}), "it is kept there");
    let path = "/apis/farm.example.com/v1/cows?watch=true&timeoutSeconds=1";
    let watched = server.ask(None, "GET", path, &[("Authorization", "Bearer root-token")], "");
    assert!(watched.text.starts_with(r#"{"type":"ADDED""#), "{watched:?}");
    ok(server, &["patch", "cow", "bella", "--type=merge", "-p", r#"{"spec":{"milk":8}}"#], "");
    let there = farm.root("GET", "/apis/farm.example.com/v1/namespaces/default/cows/bella", &Value::Null);
    assert_eq!(there["spec"]["milk"], 8);
}

/// Both servers judge who asks, and nobody speaks for others by headers of their own.
fn asked_by_somebody_else(server: &ApiServer, farm: &ApiServer) {
    let path = "/apis/farm.example.com/v1/namespaces/default/cows";
    let headers = [
        ("Authorization", "Bearer jane-token"),
        ("X-Remote-User", "root"),
        ("X-Remote-Group", "system:masters"),
    ];
    let answers = |code: u16| {
        let answer = server.ask(None, "GET", path, &headers, "");
        if answer.code == code { Ok(answer) } else { Err(format!("{answer:?}")) }
    };
    let allow = |at: &ApiServer| {
        ok(at, &["create", "clusterrole", "milker", "--verb=list", "--resource=cows.farm.example.com"], "");
        ok(at, &["create", "clusterrolebinding", "milker", "--clusterrole=milker", "--user=jane"], "");
    };
    answers(403).unwrap();
    allow(farm);
    answers(403).unwrap();
    allow(server);
    eventually(Duration::from_secs(20), "both let her", || answers(200));
    ok(farm, &["delete", "clusterrolebinding", "milker"], "");
    let refused = eventually(Duration::from_secs(20), "the other does not", || answers(403));
    assert!(refused.text.contains(r#"User \"jane\" cannot list resource \"cows\""#), "{refused:?}");
}
