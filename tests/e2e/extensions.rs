//! What extends the API server from inside the cluster, reached through the tunnel alone: a validating webhook, a
//! conversion webhook and an aggregated API server in one pod, while wire lets nothing from control to the nodes.

use std::net::Ipv4Addr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{ExtendedKeyUsagePurpose, SanType};

use crate::kit::capture::Capture;
use crate::kit::server::Ca;
use crate::kit::{Lab, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers reviews, conversions and one aggregated group over TLS.
const PROGRAM: &str = r#"
import http.server, json, ssl
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def send(self, code, body):
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        if review["kind"] == "ConversionReview":
            done = [dict(one, apiVersion=request["desiredAPIVersion"], spec={"shown": request["desiredAPIVersion"]}) for one in request["objects"]]
            response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": done}
        else:
            response = {"uid": request["uid"], "allowed": False, "status": {"message": "said the pod"}}
        self.send(200, {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})
    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/apis/farm.example.com/v1":
            cows = {"name": "cows", "singularName": "cow", "namespaced": False, "kind": "Cow", "verbs": ["get", "list"]}
            return self.send(200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "farm.example.com/v1", "resources": [cows]})
        if path == "/apis/farm.example.com/v1/cows/me":
            return self.send(200, {"kind": "Cow", "apiVersion": "farm.example.com/v1", "metadata": {"name": self.headers["X-Remote-User"]}})
        self.send(404, {})
    def log_message(self, *_): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8443), Answer)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

/// The pod with its service, its certificate and its program.
fn backend(lab: &Lab, ca: &Ca) {
    let pair = ca.issue("extension", "", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names =
            vec![SanType::DnsName("extension.default.svc".to_owned().try_into().unwrap())];
    });
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let program: String = PROGRAM.lines().map(|line| format!("    {line}\n")).collect();
    lab.apply(&format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: extension}}
data: {{tls.crt: {}, tls.key: {}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: extension}}
data:
  serve.py: |
{program}
---
apiVersion: v1
kind: Pod
metadata: {{name: extension, labels: {{app: extension}}}}
spec:
  containers:
  - name: server
    image: minilab/toolbox
    command: [python3, /program/serve.py]
    readinessProbe: {{tcpSocket: {{port: 8443}}, periodSeconds: 1}}
    volumeMounts: [{{name: tls, mountPath: /tls}}, {{name: program, mountPath: /program}}]
  volumes:
  - {{name: tls, secret: {{secretName: extension}}}}
  - {{name: program, configMap: {{name: extension}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: extension}}
spec: {{selector: {{app: extension}}, ports: [{{port: 443, targetPort: 8443}}]}}
",
        encode(&pair.cert),
        encode(&pair.key)
    ));
    lab.wait_ready("extension");
}

fn registrations(ca: &Ca) -> String {
    let bundle = BASE64_STANDARD.encode(&ca.pem);
    let config =
        format!("{{service: {{namespace: default, name: extension, path: /ask}}, caBundle: {bundle}}}");
    let version = |name: &str, stored: bool| {
        format!(
            "{{name: {name}, served: true, storage: {stored}, schema: {{openAPIV3Schema: {{type: object, \
             properties: {{spec: {{type: object, properties: {{shown: {{type: string}}}}}}}}}}}}}}"
        )
    };
    format!(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {{name: extension}}
webhooks:
- name: hook.example.com
  clientConfig: {config}
  rules: [{{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [configmaps]}}]
  objectSelector: {{matchLabels: {{judged: 'yes'}}}}
  sideEffects: None
  admissionReviewVersions: [v1]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: sayings.talk.example.com}}
spec:
  group: talk.example.com
  scope: Namespaced
  names: {{plural: sayings, singular: saying, kind: Saying}}
  conversion: {{strategy: Webhook, webhook: {{conversionReviewVersions: [v1], clientConfig: {config}}}}}
  versions: [{}, {}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.farm.example.com}}
spec:
  group: farm.example.com
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 15
  caBundle: {bundle}
  service: {{namespace: default, name: extension}}
",
        version("v1", true),
        version("v2", false)
    )
}

#[test]
fn webhooks_and_an_aggregated_server_in_a_pod_answer_through_the_tunnel() {
    let lab = Lab::with(&[
        ("apiserver-egress.tunnel", "hardened"),
        ("apiserver-egress.agent-authentication", "hardened"),
    ]);
    let ca = Ca::new("extension-ca");
    backend(&lab, &ca);
    let capture = Capture::start(&lab, "wire");
    lab.apply(&registrations(&ca));
    lab.kubectl(&["wait", "--for=condition=Established", "crd/sayings.talk.example.com", "--timeout=60s"])
        .ok();
    lab.kubectl(&["wait", "--for=condition=Available", "apiservice/v1.farm.example.com", "--timeout=60s"])
        .ok();
    let judged = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: judged, labels: {judged: 'yes'}}\n";
    let file = lab.home.path().join("judged.yaml");
    std::fs::write(&file, judged).unwrap();
    let refused = lab.kubectl(&["create", "-f", file.to_str().unwrap()]).fails_with(1);
    let want = r#"admission webhook "hook.example.com" denied the request: said the pod"#;
    assert!(refused.contains(want), "{refused}");
    lab.apply(
        "apiVersion: talk.example.com/v1\nkind: Saying\nmetadata: {name: one}\nspec: {shown: as written}\n",
    );
    let shown = eventually(PATIENCE, "the other version is shown", || {
        let ran = lab.kubectl(&["get", "sayings.v2.talk.example.com", "one", "-o", "jsonpath={.spec.shown}"]);
        if ran.code == 0 { Ok(ran.stdout) } else { Err(ran.stderr) }
    });
    assert_eq!(shown, "talk.example.com/v2");
    let me = eventually(PATIENCE, "the aggregated server answers", || {
        let ran = lab.kubectl(&["get", "--raw", "/apis/farm.example.com/v1/cows/me"]);
        if ran.code == 0 { Ok(ran.stdout) } else { Err(ran.stderr) }
    });
    assert!(me.contains("\"name\": \"kubernetes-admin\""), "{me}");
    let seen = capture.stop();
    let control = Ipv4Addr::new(198, 51, 100, 2);
    let opened: Vec<_> = seen
        .iter()
        .filter(|one| one.opens && *one.from.ip() == control && one.to.ip().octets()[0] != 198)
        .collect();
    assert!(opened.is_empty(), "control opened connections itself: {opened:?}");
    assert!(!seen.is_empty(), "the capture saw the tunnel");
}
