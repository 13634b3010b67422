//! Webhooks that know tokens and that decide, and the order of authorizers in a file.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::eventually;
use crate::kit::server::ApiServer;

/// A webhook of one's own: answers every review by `verdict`, and counts.
pub fn webhook(verdict: fn(&Value) -> Value) -> (String, std::sync::Arc<std::sync::Mutex<Vec<Value>>>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/review", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            review["status"] = verdict(&review);
            heard.lock().unwrap().push(review.clone());
            let text = review.to_string();
            let mut stream = reader.into_inner();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            let _ = stream.write_all((head + &text).as_bytes());
        }
    });
    let config = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: hook, cluster: {{server: '{url}', insecure-skip-tls-verify: true}}}}]\nusers: [{{name: me, user: {{}}}}]\ncontexts: [{{name: hook, context: {{cluster: hook, user: me}}}}]\ncurrent-context: hook\n"
    );
    (config, asked)
}

#[test]
fn webhooks_say_whose_token_it_is_and_who_may() {
    let (tokens, asked) = webhook(|review| match review["spec"]["token"].as_str() {
        Some("remote-token") => {
            json!({"authenticated": true, "user": {"username": "ruth", "uid": "9", "groups": ["far"]}})
        }
        Some("cursed-token") => json!({"authenticated": false, "error": "cursed"}),
        _ => json!({"authenticated": false}),
    });
    let (access, questions) = webhook(|review| match &review["spec"]["resourceAttributes"]["resource"] {
        Value::String(resource) if resource == "pods" => json!({"allowed": true}),
        Value::String(resource) if resource == "secrets" => {
            json!({"allowed": false, "denied": true, "reason": "never secrets"})
        }
        _ => json!({"allowed": false, "reason": "ask somebody else"}),
    });
    let order = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: hook
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: NoOpinion
    authorizedTTL: 30s
    unauthorizedTTL: 30s
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: '{dir}/access.conf'}
- {type: RBAC, name: rbac}
";
    let server = ApiServer::start(
        &[("tokens.conf", &tokens), ("access.conf", &access), ("authz.yaml", order)],
        &[
            "--authorization-config={dir}/authz.yaml",
            "--authentication-token-webhook-config-file={dir}/tokens.conf",
            "--authentication-token-webhook-version=v1",
        ],
    );
    let as_ruth = |path: &str| server.ask(None, "GET", path, &[("Authorization", "Bearer remote-token")], "");
    assert_eq!(as_ruth("/api/v1/namespaces/default/pods").code, 200);
    assert_eq!(as_ruth("/api/v1/namespaces/default/pods").code, 200);
    let spec = questions.lock().unwrap().last().unwrap()["spec"].clone();
    assert_eq!((&spec["user"], &spec["groups"]), (&json!("ruth"), &json!(["far", "system:authenticated"])));
    assert_eq!(
        spec["resourceAttributes"],
        json!({"namespace": "default", "verb": "list", "version": "v1", "resource": "pods"})
    );
    assert_eq!(questions.lock().unwrap().len(), 1, "the second answer was remembered");
    assert_eq!(asked.lock().unwrap().iter().filter(|one| one["spec"]["token"] == "remote-token").count(), 1);
    let denied = as_ruth("/api/v1/namespaces/default/secrets");
    assert!(
        denied.code == 403 && denied.text.contains("in the namespace \\\"default\\\": never secrets"),
        "{denied:?}"
    );
    // No opinion goes on to RBAC, whose discovery role lets everybody known in.
    assert_eq!(as_ruth("/version").code, 200);
    assert_eq!(
        server.ask(None, "GET", "/version", &[("Authorization", "Bearer cursed-token")], "").code,
        401
    );
    assert!(server.log().contains("cursed"));
}

#[test]
fn the_order_of_authorizers_changes_with_its_file_and_conditions_say_who_is_asked() {
    let (access, asked) = webhook(|_| json!({"allowed": true}));
    let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n";
    let rbac = "- {type: RBAC, name: rbac}\n";
    let server = ApiServer::start(
        &[("access.conf", &access), ("authz.yaml", &format!("{head}{rbac}"))],
        &["--authorization-config={dir}/authz.yaml"],
    );
    let jane = |path: &str| server.ask(None, "GET", path, &[("Authorization", "Bearer jane-token")], "").code;
    assert_eq!(jane("/api/v1/namespaces/default/pods"), 403);
    let hook = format!(
        "- type: Webhook
  name: hook
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: NoOpinion
    matchConditions:
    - expression: has(request.resourceAttributes) && request.resourceAttributes.resource == 'pods'
    - expression: \"!request.user.startsWith('system:')\"
    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: '{}'}}
",
        server.file("access.conf").display()
    );
    let write = |text: &str| std::fs::write(server.file("authz.yaml"), text).unwrap();
    write(&format!("{head}{hook}{rbac}"));
    eventually(Duration::from_secs(20), "the webhook is asked", || {
        match jane("/api/v1/namespaces/default/pods") {
            200 => Ok(()),
            code => Err(format!("{code}")),
        }
    });
    assert_eq!(jane("/api/v1/namespaces/default/secrets"), 403);
    assert!(
        asked.lock().unwrap().iter().all(|review| review["spec"]["resourceAttributes"]["resource"] == "pods")
    );
    // What is wrong changes nothing: not what cannot be read, and not a list without RBAC.
    for wrong in ["kind: Nonsense\n".to_owned(), format!("{head}{hook}")] {
        let before = server.log().matches("reloading authz config").count();
        write(&wrong);
        eventually(Duration::from_secs(20), "the fault is told", || {
            let told = server.log().matches("reloading authz config").count();
            if told > before { Ok(()) } else { Err(server.log()) }
        });
        assert_eq!(jane("/api/v1/namespaces/default/pods"), 200);
    }
}
