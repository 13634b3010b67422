//! The proxy subresource as the wire sees it, and the words for where it must not lead.

use std::net::Ipv4Addr;

use crate::kit::capture::{Capture, carried};
use crate::kit::{Lab, eventually};
use crate::proxy::{lab, raw};

const BASE: &str = "/api/v1/namespaces/default";

fn ip_of(lab: &Lab, pod: &str, field: &str) -> Ipv4Addr {
    lab.object(&["pod", pod])["status"][field].as_str().unwrap().parse().unwrap()
}

#[test]
fn the_wire_has_plain_http_and_only_a_prefix_makes_it_ciphertext() {
    let lab = lab();
    let on_node = "
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'from-the-node ' + self.path.encode())
    def log_message(self, *a): pass
http.server.HTTPServer(('', 18099), H).serve_forever()
";
    lab.apply(
        &serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "onnode"},
            "spec": {"hostNetwork": true, "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "c", "image": "minilab/toolbox", "command": ["python3", "-c", on_node],
                "readinessProbe": {"tcpSocket": {"port": 18099}, "periodSeconds": 1}}]},
        })
        .to_string(),
    );
    lab.wait_ready("onnode");
    eventually(std::time::Duration::from_secs(30), "the service has its endpoint", || {
        let ran = lab.kubectl(&["get", "--raw", &format!("{BASE}/services/web:80/proxy/")]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    let (pod, node) = (ip_of(&lab, "web", "podIP"), ip_of(&lab, "onnode", "hostIP"));
    let name = lab.object(&["pod", "onnode"])["spec"]["nodeName"].as_str().unwrap().to_owned();

    for (path, host, port) in [
        (format!("{BASE}/pods/web:8080/proxy/marker-of-pod"), pod, 8080),
        (format!("{BASE}/services/web:80/proxy/marker-of-service"), pod, 8080),
        (format!("/api/v1/nodes/{name}:18099/proxy/marker-of-node"), node, 18099),
    ] {
        let capture = Capture::start(&lab, "wire");
        let answer = raw(&lab, &path);
        let seen = capture.stop();
        let asked = format!("GET /{} HTTP/1.1\r\n", path.rsplit('/').next().unwrap());
        assert!(carried(&seen, host, port, asked.as_bytes()), "{path}: the question in plain text");
        let told = answer.trim().lines().last().unwrap();
        assert!(carried(&seen, host, port, told.as_bytes()), "{path}: and the answer: {told}");
        for credential in [&b"uthorization:"[..], b"Bearer "] {
            assert!(!carried(&seen, host, port, credential), "{path}: no credential goes along");
        }
    }

    let capture = Capture::start(&lab, "wire");
    let answer = raw(&lab, &format!("{BASE}/pods/https:web:8443/proxy/marker-of-tls"));
    let seen = capture.stop();
    assert!(answer.starts_with("GET /marker-of-tls\n"), "{answer}");
    let hello: &[u8] = &[0x16, 0x03, 0x01];
    assert!(carried(&seen, pod, 8443, hello), "the capture saw the handshake");
    assert!(!carried(&seen, pod, 8443, b"marker-of-tls"), "and nothing that was said");

    // To the kubelet's own port it is TLS without being asked, and with a certificate of ours.
    let capture = Capture::start(&lab, "wire");
    let pods = raw(&lab, &format!("/api/v1/nodes/{name}/proxy/pods"));
    let seen = capture.stop();
    assert!(pods.contains("\"kind\":\"PodList\""), "{pods}");
    assert!(carried(&seen, node, 10250, hello) && !carried(&seen, node, 10250, b"PodList"));
}

#[test]
fn no_certificate_is_offered_though_the_server_takes_those_it_is_shown() {
    let lab = lab();
    let said = raw(&lab, &format!("{BASE}/pods/https:web:8443/proxy/"));
    assert!(said.contains("certificate=False\n"), "{said}");
    let shows_one = "
import ssl, urllib.request
c = ssl.create_default_context(); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
c.load_cert_chain('/tmp/c', '/tmp/k')
print(urllib.request.urlopen('https://127.0.0.1:8443/', context=c).read().decode())
";
    let said = lab.kubectl(&["exec", "web", "--", "python3", "-c", shows_one]).ok();
    assert!(said.contains("certificate=True\n"), "the control: {said}");
}

#[test]
fn addresses_that_are_not_the_clusters_are_refused() {
    let lab = lab();
    lab.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec:
  nodeSelector: {there: is-no-such-node}
  containers: [{name: c, image: minilab/toolbox}]
---
apiVersion: v1
kind: Node
metadata: {name: liar}
---
apiVersion: v1
kind: Service
metadata: {name: manual}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: manual}
subsets: [{addresses: [{ip: 203.0.113.9}], ports: [{port: 80}]}]
",
    );
    let says = |path: &str, want: &str| {
        let ran = lab.kubectl(&["get", "--raw", path]);
        assert_eq!((ran.code, ran.stderr.as_str()), (1, want), "{path}");
    };
    let refused = "Error from server (BadRequest): address not allowed\n";
    says(&format!("{BASE}/pods/nowhere:80/proxy/"), refused);
    let patch = |kind: &str, name: &str, status: serde_json::Value| {
        let status = serde_json::json!({ "status": status }).to_string();
        lab.kubectl(&["patch", kind, name, "--subresource=status", "--type=merge", "-p", &status]).ok();
    };
    for ip in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"] {
        patch("pod", "nowhere", serde_json::json!({"podIP": ip, "podIPs": [{"ip": ip}]}));
        says(&format!("{BASE}/pods/nowhere:80/proxy/"), refused);
        says(&format!("{BASE}/pods/https:nowhere:443/proxy/"), refused);
        patch("node", "liar", serde_json::json!({"addresses": [{"type": "InternalIP", "address": ip}]}));
        says("/api/v1/nodes/liar:80/proxy/", refused);
        says("/api/v1/nodes/liar/proxy/", refused);
    }
    // The control: the same objects with an address of the network are tried.
    let own = ip_of(&lab, "web", "podIP").to_string();
    patch("pod", "nowhere", serde_json::json!({"podIP": own, "podIPs": [{"ip": own}]}));
    assert!(raw(&lab, &format!("{BASE}/pods/nowhere:8080/proxy/x")).starts_with("GET /x\n"));
    // Whoever may write Endpoints may not send the API server anywhere with them.
    says(
        &format!("{BASE}/services/manual:80/proxy/"),
        "Error from server (ServiceUnavailable): no endpoints available for service \"manual:80\"\n",
    );
    lab.kubectl(&["delete", "node", "liar"]).ok();
}
