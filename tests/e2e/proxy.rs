//! The proxy subresource, clause by clause: what the wire has, who is believed, what goes along, and the
//! words for what goes wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use crate::kit::{Lab, clients, eventually};

/// Three servers in one pod: HTTP that says what it was asked, the same behind TLS with a certificate of
/// its own that asks for the client's, and one that takes any upgrade and repeats what it hears.
const SERVERS: &str = r#"
import base64, hashlib, http.server, socketserver, ssl, subprocess, threading
class Says(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0)).decode()
        while self.headers.get('Transfer-Encoding') == 'chunked':
            size = int(self.rfile.readline(), 16)
            body += self.rfile.read(size).decode()
            self.rfile.readline()
            if not size: break
        if self.path == '/hop':
            self.send_response(302); self.send_header('Location', '/there?x=1'); self.send_header('Content-Length', '0'); self.end_headers(); return
        if self.path == '/page':
            page = b'<a href="/foo">x</a>'
            self.send_response(200); self.send_header('Content-Type', 'text/html; charset=utf-8'); self.send_header('Content-Length', str(len(page))); self.end_headers(); self.wfile.write(page); return
        shown = getattr(self.connection, 'getpeercert', lambda binary: None)(True)
        text = '%s %s\n%sbody=%s\ncertificate=%s\n' % (self.command, self.path, self.headers, body, bool(shown))
        self.send_response(200); self.send_header('Content-Length', str(len(text))); self.send_header('Access-Control-Allow-Origin', '*'); self.end_headers()
        self.wfile.write(text.encode())
    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer
    def log_message(self, *rest): pass
class Repeats(socketserver.BaseRequestHandler):
    def handle(self):
        head = b''
        while b'\r\n\r\n' not in head:
            head += self.request.recv(1)
        if b'upgrade: websocket' in head.lower(): return self.websocket(head.decode())
        self.request.sendall(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n')
        while True:
            heard = self.request.recv(4096)
            if not heard: return
            self.request.sendall(heard)
    def websocket(self, head):
        key = [line.split(': ')[1] for line in head.split('\r\n') if line.lower().startswith('sec-websocket-key')][0]
        accept = base64.b64encode(hashlib.sha1((key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode()
        self.request.sendall(('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n' % accept).encode())
        while True:
            frame = self.rfile.read(2)
            if not frame: return
            mask, text = self.rfile.read(4), self.rfile.read(frame[1] & 127)
            self.request.sendall(bytes([frame[0], len(text)]) + bytes(b ^ mask[at % 4] for at, b in enumerate(text)))
    def setup(self): self.rfile = self.request.makefile('rb', 0)
class Many(socketserver.ThreadingMixIn, http.server.HTTPServer): daemon_threads = True
class Parrot(socketserver.ThreadingTCPServer): daemon_threads = True
open('/tmp/conf', 'w').write('[req]\ndistinguished_name=dn\n[dn]\n')
subprocess.run('openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=nobody -keyout /tmp/k -out /tmp/c -config /tmp/conf'.split(), check=True)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); tls.load_cert_chain('/tmp/c', '/tmp/k')
tls.verify_mode = ssl.CERT_OPTIONAL; tls.load_verify_locations('/tmp/c')
secure = Many(('', 8443), Says); secure.socket = tls.wrap_socket(secure.socket, server_side=True)
for server in (secure, Parrot(('', 9000), Repeats)): threading.Thread(target=server.serve_forever, daemon=True).start()
print('ready', flush=True)
Many(('', 8080), Says).serve_forever()
"#;

pub fn lab() -> Lab {
    let lab = Lab::up();
    lab.apply(
        &serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                "name": "web", "image": "minilab/toolbox", "command": ["python3", "-c", SERVERS],
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}]},
        })
        .to_string(),
    );
    lab.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=8080"]).ok();
    lab.wait_ready("web");
    lab
}

pub fn raw(lab: &Lab, path: &str) -> String {
    lab.kubectl(&["get", "--raw", path]).ok()
}

#[test]
fn pods_and_services_are_reached_through_the_api_server() {
    let lab = lab();
    let base = "/api/v1/namespaces/default";
    for name in ["web", "web:8080", "http:web:8080", "http:web:"] {
        let said = raw(&lab, &format!("{base}/pods/{name}/proxy/a/b?c=d"));
        assert!(said.starts_with("GET /a/b?c=d\n"), "{name}: {said}");
        let uri = format!("x-forwarded-uri: {base}/pods/{name}/proxy/a/b\n");
        assert!(said.to_lowercase().contains(&uri), "{said}");
        assert!(said.to_lowercase().contains("x-forwarded-for: "), "{said}");
        assert!(!said.to_lowercase().contains("authorization:"), "credentials went along: {said}");
    }
    let said = raw(&lab, &format!("{base}/pods/https:web:8443/proxy/"));
    assert!(said.starts_with("GET /\n"), "a certificate of its own is accepted: {said}");
    assert!(said.contains("certificate=False"), "and none is offered, though asked for: {said}");
    eventually(Duration::from_secs(20), "the service has its endpoint", || {
        let ran = lab.kubectl(&["get", "--raw", &format!("{base}/services/web:80/proxy/x/")]);
        if ran.stdout.starts_with("GET /x/\n") { Ok(()) } else { Err(ran.stderr) }
    });
    assert!(raw(&lab, &format!("{base}/services/http:web:80/proxy/")).starts_with("GET /\n"));
    let chunked = in_chunks(&lab, &format!("{base}/pods/web/proxy/search"));
    assert!(chunked.contains("GET /search\n") && chunked.contains("body=some words\n"), "{chunked}");
    // A redirect of the pod's leads back through the proxy, and so does the missing slash.
    assert!(raw(&lab, &format!("{base}/pods/web/proxy/hop")).starts_with("GET /there?x=1\n"));
    let page = raw(&lab, &format!("{base}/pods/web/proxy/page"));
    assert_eq!(page.trim_end(), format!("<a href=\"{base}/pods/web/proxy/foo\">x</a>"));
    assert!(raw(&lab, &format!("{base}/pods/web/proxy/%ff")).starts_with("GET /%FF\n"));
    assert!(raw(&lab, &format!("{base}/pods/web/proxy")).starts_with("GET /\n"));
    let file = lab.home.path().join("body");
    std::fs::write(&file, "some words").unwrap();
    let file = file.to_str().unwrap();
    let said = lab.kubectl(&["create", "--raw", &format!("{base}/pods/web/proxy/in"), "-f", file]).ok();
    assert!(said.starts_with("POST /in\n") && said.contains("body=some words\n"), "{said}");
    let said = lab.kubectl(&["replace", "--raw", &format!("{base}/pods/web/proxy/in"), "-f", file]).ok();
    assert!(said.starts_with("PUT /in\n"), "{said}");
}

#[test]
fn what_cannot_be_reached_is_said_in_upstreams_words() {
    let lab = lab();
    let ip = lab.object(&["pod", "web"])["status"]["podIP"].as_str().unwrap().to_owned();
    lab.kubectl(&["create", "service", "clusterip", "empty", "--tcp=80:80"]).ok();
    let base = "/api/v1/namespaces/default";
    let unavailable = "Error from server (ServiceUnavailable): ";
    for (path, want) in [
        (
            format!("{base}/pods/web:81/proxy/"),
            format!(
                "{unavailable}error trying to reach service: dial tcp {ip}:81: connect: connection refused\n"
            ),
        ),
        (
            format!("{base}/pods/https:web:8080/proxy/"),
            format!(
                "{unavailable}error trying to reach service: http: server gave HTTP response to HTTPS client\n"
            ),
        ),
        (
            format!("{base}/services/web:9/proxy/"),
            format!("{unavailable}no service port 9 found for service \"web\"\n"),
        ),
        (
            format!("{base}/services/empty:80/proxy/"),
            format!("{unavailable}no endpoints available for service \"empty\"\n"),
        ),
        (
            format!("{base}/pods/ftp:web:80/proxy/"),
            "Error from server (BadRequest): invalid pod request \"ftp:web:80\"\n".into(),
        ),
        (
            format!("{base}/pods/gone/proxy/"),
            "Error from server (NotFound): pods \"gone\" not found\n".into(),
        ),
    ] {
        let ran = lab.kubectl(&["get", "--raw", &path]);
        assert_eq!((ran.code, ran.stderr.as_str()), (1, want.as_str()), "{path}");
    }
}

#[test]
fn a_nodes_kubelet_answers_through_the_api_server_and_any_upgrade_passes() {
    let lab = lab();
    let node = lab.object(&["pod", "web"])["spec"]["nodeName"].as_str().unwrap().to_owned();
    for name in [node.clone(), format!("{node}:10250"), format!("https:{node}:10250")] {
        let pods = raw(&lab, &format!("/api/v1/nodes/{name}/proxy/pods"));
        let pods: serde_json::Value = serde_json::from_str(&pods).unwrap();
        let names = pods["items"].as_array().unwrap().iter().map(|pod| &pod["metadata"]["name"]);
        assert!(names.into_iter().any(|name| name == "web"), "{name}: {pods}");
    }
    // `kubectl proxy` is a second such proxy in front; a made-up protocol goes through both.
    let mut proxy = lab
        .kubectl_command(clients::any())
        .args(["proxy", "--port=0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let address = first.trim().rsplit(' ').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let path = "/api/v1/namespaces/default/pods/web:9000/proxy/talk";
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let head = head_of(&mut stream);
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"polly").unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"polly");
    websocket_echo(&address, path);
    proxy.kill().unwrap();
    proxy.wait().unwrap();
}

/// A GET with a body whose length is not said, as search engines are asked.
fn in_chunks(lab: &Lab, path: &str) -> String {
    let mut proxy = lab
        .kubectl_command(clients::any())
        .args(["proxy", "--port=0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let mut stream = TcpStream::connect(first.trim().rsplit(' ').next().unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let body = "Transfer-Encoding: chunked\r\n\r\na\r\nsome words\r\n0\r\n\r\n";
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    proxy.kill().unwrap();
    proxy.wait().unwrap();
    said
}

fn head_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    head
}

/// RFC 6455's own example of a key, and a masked text there and an unmasked one back.
fn websocket_echo(address: &str, path: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let head = String::from_utf8(head_of(&mut stream)).unwrap();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let mask = [1, 2, 3, 4];
    let masked = b"hello".iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]);
    let frame: Vec<u8> = [0x81, 0x80 | 5].into_iter().chain(mask).chain(masked).collect();
    stream.write_all(&frame).unwrap();
    let mut heard = [0; 7];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"\x81\x05hello");
}
