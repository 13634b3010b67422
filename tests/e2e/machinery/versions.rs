//! Kinds in more than one version: by code for built-in ones, by a webhook for users' own.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::webhooks::served;
use super::{ok, ok_of, refused};
use crate::kit::clients;
use crate::kit::eventually;
use crate::kit::server::ApiServer;

#[test]
fn autoscalers_and_events_are_read_and_written_in_both_versions() {
    let server = ApiServer::start(&[], &[]);
    for (index, kubectl) in clients::both().iter().enumerate() {
        let name = format!("web-{index}");
        ok_of(&server, kubectl, &["create", "deployment", &name, "--image=x"], "");
        ok_of(&server, kubectl, &["autoscale", "deployment", &name, "--max=5", "--cpu-percent=70"], "");
        let path = format!("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/{name}");
        let kept = server.root("GET", &path, &Value::Null);
        assert_eq!(kept["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
        let old = server.root("GET", &path.replace("v2", "v1"), &Value::Null);
        assert_eq!(
            (&old["apiVersion"], &old["spec"]["targetCPUUtilizationPercentage"]),
            (&json!("autoscaling/v1"), &json!(70))
        );
        let table = ok_of(&server, kubectl, &["get", "horizontalpodautoscalers.v1.autoscaling", &name], "");
        assert!(table.contains("cpu: <unknown>/70%"), "{table}");
    }
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Tested", "action": "Test",
        "note": "it happened", "reportingController": "test.io/me", "reportingInstance": "me-1",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    server.root("POST", path, &event);
    let old = server.root("GET", "/api/v1/namespaces/default/events/e", &Value::Null);
    assert_eq!((&old["message"], &old["involvedObject"]["name"]), (&json!("it happened"), &json!("p")));
    let found = server.root("GET", &format!("{path}?fieldSelector=regarding.name%3Dp"), &Value::Null);
    assert_eq!(found["items"][0]["note"], "it happened");
    assert!(ok(&server, &["get", "events.events.k8s.io"], "").contains("it happened"));
    let mut wrong = event;
    wrong["metadata"]["name"] = json!("f");
    wrong["action"] = Value::Null;
    let answer =
        server.ask(None, "POST", path, &[("Authorization", "Bearer root-token")], &wrong.to_string());
    assert!(answer.code == 422 && answer.text.contains("action: Required value"), "{answer:?}");
}

/// `v1` has a text, `v2` its words; an object named `bad` cannot be converted.
fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let objects = request["objects"].as_array().unwrap();
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let one = |object: &Value| {
        let mut object = object.clone();
        let spec = &object["spec"];
        let new = match wanted.ends_with("v2") {
            true => json!({"words": spec["text"].as_str().unwrap().split(' ').collect::<Vec<_>>()}),
            false => {
                let words: Vec<&str> =
                    spec["words"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                json!({"text": words.join(" ")})
            }
        };
        object["spec"] = new;
        object["apiVersion"] = json!(wanted);
        object
    };
    let mut response = json!({"uid": request["uid"], "result": {"status": "Success"}});
    match objects.iter().any(|object| object["metadata"]["name"] == "bad") {
        true => response["result"] = json!({"status": "Failure", "message": "bad never converts"}),
        false => response["convertedObjects"] = objects.iter().map(one).collect(),
    }
    json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response})
}

fn definition(server: &ApiServer, url: &str) -> String {
    let bundle = BASE64_STANDARD.encode(&server.ca.pem);
    let version = |name: &str, stored: bool, field: &str, column: &str| {
        format!(
            "  - name: {name}
    served: true
    storage: {stored}
    additionalPrinterColumns: [{{name: Said, type: string, jsonPath: '{column}'}}]
    schema: {{openAPIV3Schema: {{type: object, properties: {{spec: {{type: object, properties: {{{field}}}}}}}}}}}
"
        )
    };
    format!(
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: sayings.talk.example.com}}
spec:
  group: talk.example.com
  scope: Namespaced
  names: {{plural: sayings, singular: saying, kind: Saying}}
  conversion:
    strategy: Webhook
    webhook: {{conversionReviewVersions: [v1], clientConfig: {{url: '{url}', caBundle: {bundle}}}}}
  versions:
{}{}",
        version("v1", true, "text: {type: string}", ".spec.text"),
        version("v2", false, "words: {type: array, items: {type: string}}", ".spec.words[0]"),
    )
}

#[test]
fn a_webhook_converts_between_the_versions_of_a_users_kind() {
    let server = ApiServer::start(&[], &[]);
    let url = served(&server, convert);
    let wrong = definition(&server, &url).replace("[v1], clientConfig", "[v7], clientConfig");
    let why = refused(&server, &["create", "-f", "-"], &wrong);
    assert!(why.contains("spec.conversion.webhook.conversionReviewVersions: Invalid value"), "{why}");
    ok(&server, &["create", "-f", "-"], &definition(&server, &url));
    ok(
        &server,
        &["wait", "--for=condition=Established", "crd/sayings.talk.example.com", "--timeout=30s"],
        "",
    );
    let saying = |version: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: talk.example.com/{version}\nkind: Saying\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    };
    ok(&server, &["create", "-f", "-"], &saying("v1", "one", "text: to be or not"));
    ok(&server, &["create", "-f", "-"], &saying("v2", "two", "words: [so, it, goes]"));
    let get = |version: &str, name: &str| {
        let path = format!("/apis/talk.example.com/{version}/namespaces/default/sayings/{name}");
        server.root("GET", &path, &Value::Null)["spec"].clone()
    };
    assert_eq!(get("v2", "one"), json!({"words": ["to", "be", "or", "not"]}));
    assert_eq!(get("v1", "two"), json!({"text": "so it goes"}));
    let table = ok(&server, &["get", "sayings.v2.talk.example.com"], "");
    assert!(table.contains("so") && !table.contains("so it goes"), "{table}");
    let path = "/apis/talk.example.com/v2/namespaces/default/sayings?watch=true&timeoutSeconds=1";
    let watched = server.ask(None, "GET", path, &[("Authorization", "Bearer root-token")], "");
    assert!(watched.text.contains(r#""words":["to","be","or","not"]"#), "{watched:?}");
    // A change in one version is a change in the other, also by apply.
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    ok(&server, &apply, &saying("v2", "one", "words: [never, mind]"));
    assert_eq!(get("v1", "one"), json!({"text": "never mind"}));
    let why = refused(&server, &["create", "-f", "-"], &saying("v2", "bad", "words: [x]"));
    let want = "conversion webhook for talk.example.com/v2, Kind=Saying failed: bad never converts";
    assert!(why.contains(want), "{why}");
    ok(&server, &["create", "-f", "-"], &saying("v1", "bad", "text: x"));
    let why = refused(&server, &["get", "sayings.v2.talk.example.com", "bad"], "");
    assert!(why.contains("bad never converts"), "{why}");
    older_clients(&server);
    ok(&server, &["delete", "sayings.v1.talk.example.com", "--all"], "");
}

/// The older form of OpenAPI knows users' kinds too.
fn older_clients(server: &ApiServer) {
    eventually(Duration::from_secs(20), "the document names the kind", || {
        let document = server.root("GET", "/openapi/v2", &Value::Null);
        let own = &document["definitions"]["com.example.talk.v1.Saying"];
        match own["properties"]["spec"]["properties"]["text"]["type"] == "string" {
            true => Ok(()),
            false => Err(own.to_string()),
        }
    });
}
