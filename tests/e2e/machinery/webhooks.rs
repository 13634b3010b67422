//! Admission by others: webhooks that change and judge, and policies in CEL.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::{ok, refused};
use crate::kit::clients;
use crate::kit::eventually;
use crate::kit::server::ApiServer;

type Heard = Arc<Mutex<Vec<Value>>>;

/// A webhook that answers by `verdict`; its URL, and the requests it heard.
fn webhook(server: &ApiServer, verdict: fn(&Value) -> Value) -> (String, Heard) {
    let heard = Heard::default();
    let told = heard.clone();
    let url = served(server, move |review| {
        let mut response = verdict(&review["request"]);
        response["uid"] = review["request"]["uid"].clone();
        told.lock().unwrap().push(review["request"].clone());
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    });
    (url, heard)
}

/// A server over TLS that answers every review by `reply`; its URL.
pub fn served(server: &ApiServer, reply: impl Fn(&Value) -> Value + Send + 'static) -> String {
    let pair = server.ca.issue("hook", "", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    });
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
            // A client that goes away is none of ours.
            let _ = answer(tls, &reply);
        }
    });
    url
}

fn answer(
    tls: StreamOwned<ServerConnection, std::net::TcpStream>,
    reply: &dyn Fn(&Value) -> Value,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(tls);
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let text = reply(&serde_json::from_slice(&body)?).to_string();
    let tls = reader.get_mut();
    write!(
        tls,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )?;
    tls.flush()
}

/// A configuration with one webhook for ConfigMaps.
fn configuration(server: &ApiServer, kind: &str, url: &str, rest: &str) -> String {
    let bundle = BASE64_STANDARD.encode(&server.ca.pem);
    format!(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: {kind}
metadata: {{name: {}}}
webhooks:
- name: hook.example.com
  clientConfig: {{url: '{url}', caBundle: {bundle}}}
  rules: [{{operations: [CREATE, UPDATE], apiGroups: [''], apiVersions: [v1], resources: [configmaps]}}]
  sideEffects: None
  admissionReviewVersions: [v1]
  {rest}
",
        kind.to_lowercase()
    )
}

fn map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{{data}}}\n")
}

#[test]
fn webhooks_change_and_judge_what_is_written() {
    let server = ApiServer::start(&[], &[]);
    let (changing, heard) = webhook(&server, |_| {
        let patch = json!([{"op": "add", "path": "/data/added", "value": "yes"}]).to_string();
        json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch)})
    });
    let (judging, _) = webhook(&server, |request| match request["object"]["data"]["bad"].is_string() {
        true => json!({"allowed": false, "status": {"message": "nothing bad here", "code": 403}}),
        false => json!({"allowed": true, "warnings": ["looked at"]}),
    });
    ok(
        &server,
        &["create", "-f", "-"],
        &configuration(&server, "MutatingWebhookConfiguration", &changing, ""),
    );
    ok(
        &server,
        &["create", "-f", "-"],
        &configuration(&server, "ValidatingWebhookConfiguration", &judging, ""),
    );
    let (code, _, stderr) = server.kubectl(clients::any(), &["create", "-f", "-"], &map("good", "a: b"));
    assert!(code == 0 && stderr.contains("Warning: looked at"), "{stderr}");
    let made = server.root("GET", "/api/v1/namespaces/default/configmaps/good", &Value::Null);
    assert_eq!(made["data"], json!({"a": "b", "added": "yes"}));
    let request = heard.lock().unwrap()[0].clone();
    assert_eq!(
        (&request["operation"], &request["resource"]["resource"]),
        (&json!("CREATE"), &json!("configmaps"))
    );
    assert_eq!(
        (&request["userInfo"]["username"], &request["namespace"]),
        (&json!("root"), &json!("default"))
    );
    let why = refused(&server, &["create", "-f", "-"], &map("evil", "bad: b"));
    let want = r#"admission webhook "hook.example.com" denied the request: nothing bad here"#;
    assert!(why.contains(want), "{why}");
    // What is none of its business is not asked about.
    let before = heard.lock().unwrap().len();
    ok(&server, &["create", "serviceaccount", "other"], "");
    assert_eq!(heard.lock().unwrap().len(), before);
    ok(&server, &["delete", "mutatingwebhookconfigurations,validatingwebhookconfigurations", "--all"], "");
    silence(&server);
}

/// A webhook that nobody answers for: refused, unless it says that this does not matter.
fn silence(server: &ApiServer) {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("https://{nobody}/hook");
    let kind = "ValidatingWebhookConfiguration";
    ok(server, &["create", "-f", "-"], &configuration(server, kind, &url, ""));
    let why = refused(server, &["create", "-f", "-"], &map("later", "a: b"));
    let want = r#"failed calling webhook "hook.example.com": failed to call webhook: Post "https://"#;
    assert!(why.contains(want) && why.contains("connect: connection refused"), "{why}");
    let open = configuration(server, kind, &url, "failurePolicy: Ignore");
    ok(server, &["replace", "-f", "-"], &open);
    ok(server, &["create", "-f", "-"], &map("later", "a: b"));
    let conditions = "matchConditions: [{name: mine, expression: \"request.userInfo.username != 'root'\"}]";
    ok(server, &["replace", "-f", "-"], &configuration(server, kind, &url, conditions));
    ok(server, &["create", "-f", "-"], &map("mine", "a: b"));
    let wrong = configuration(server, kind, "http://127.0.0.1/hook", "")
        .replace("sideEffects: None", "sideEffects: Some");
    let why = refused(server, &["replace", "-f", "-"], &wrong);
    assert!(why.contains("webhooks[0].sideEffects: Unsupported value: \"Some\""), "{why}");
    assert!(why.contains("'https' is the only allowed URL scheme"), "{why}");
    ok(server, &["delete", "validatingwebhookconfigurations", "--all"], "");
}

const POLICY: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: few.example.com}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments]}]
  variables: [{name: most, expression: \"int(params.data.most)\"}]
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: \"'at most ' + string(variables.most) + ' replicas'\"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: few-here}
spec:
  policyName: few.example.com
  validationActions: [Deny]
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {limited: 'yes'}}}
";

#[test]
fn policies_judge_by_expressions_and_parameters() {
    let server = ApiServer::start(&[], &[]);
    ok(&server, &["create", "-f", "-"], &map("limits", "most: '3'"));
    ok(&server, &["create", "namespace", "limited"], "");
    ok(&server, &["label", "namespace", "limited", "limited=yes"], "");
    ok(&server, &["create", "-f", "-"], POLICY);
    let create = |namespace: &str, replicas: &str| {
        let arguments = ["create", "deployment", "web", "--image=x", replicas, "-n", namespace];
        server.kubectl(clients::any(), &arguments, "")
    };
    let want = "ValidatingAdmissionPolicy 'few.example.com' with binding 'few-here' denied request: at most 3 replicas";
    eventually(Duration::from_secs(20), "the policy holds", || {
        let (code, _, stderr) = create("limited", "--replicas=4");
        if code != 0 && stderr.contains(want) { Ok(()) } else { Err(stderr) }
    });
    assert_eq!(create("limited", "--replicas=3").0, 0);
    assert_eq!(create("default", "--replicas=4").0, 0, "a namespace without the label is not bound");
    let why = refused(&server, &["scale", "-n", "default", "deployment", "web", "--replicas=x"], "");
    assert!(why.contains("invalid argument"), "{why}");
    let wrong = POLICY.replace("object.spec.replicas <=", "objekt.spec.replicas <=");
    let why = refused(&server, &["replace", "-f", "-"], &wrong);
    assert!(why.contains("spec.validations[0].expression: Invalid value") && why.contains("objekt"), "{why}");
}
