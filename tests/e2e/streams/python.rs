//! The official Python client's `stream`: exec by `v4.channel.k8s.io`, port-forward by plain
//! channels; logs and watches in messages.

use std::process::Command;
use std::time::Duration;

use super::text;
use crate::kit::{Lab, clients, eventually};

const SCRIPT: &str = r#"
import hashlib, os, sys
from kubernetes import client, config
from kubernetes.stream import portforward, stream
config.load_kube_config()
api = client.CoreV1Api()

def run(*command, **more):
    return stream(api.connect_get_namespaced_pod_exec, 'web', 'default', command=list(command),
                  stderr=True, stdout=True, tty=False, **{'stdin': False, **more})

# All at once.
assert run('echo', 'hello') == 'hello\n'
# In pieces, both ways, with both outputs apart and the exit code at the end.
talk = run('sh', '-c', 'while read line; do echo heard $line; [ $line = end ] && break; done; echo bad >&2; exit 7',
           stdin=True, _preload_content=False)
for word in ('one', 'end'):
    talk.write_stdin(word + '\n')
    assert talk.readline_stdout(timeout=20) == 'heard ' + word
talk.run_forever(timeout=20)
assert talk.read_stderr() == 'bad\n', 'standard error is its own channel'
assert talk.returncode == 7, talk.returncode
# Much, byte for byte.
big = run('sh', '-c', 'head -c 5000000 /dev/urandom > /tmp/big; cat /tmp/big', _preload_content=False, binary=True)
got = b''
while big.is_open():
    big.update(timeout=20)
    got += big.read_stdout() if big.peek_stdout() else b''
assert run('sha256sum', '/tmp/big').split()[0] == hashlib.sha256(got).hexdigest(), len(got)

for _ in range(3):
    forward = portforward(api.connect_get_namespaced_pod_portforward, 'web', 'default', ports='8080,8081')
    peer = forward.socket(8080)
    peer.setblocking(True)
    peer.settimeout(20)
    peer.sendall(b'GET /page HTTP/1.0\r\nHost: web\r\n\r\n')
    answer = b''
    while True:
        piece = peer.recv(65536)
        if not piece: break
        answer += piece
    assert answer.startswith(b'HTTP/1.0 200') and answer.endswith(b'a page\n'), answer
    assert forward.error(8080) is None
    peer.close()
# Nobody listens on the other port, and that is said on its own error channel.
dead = forward.socket(8081)
dead.setblocking(True)
dead.settimeout(20)
assert dead.recv(10) == b''
assert 'connection refused' in forward.error(8081), forward.error(8081)

# Logs and watches come in messages to whoever asks by WebSocket.
import base64, json, websocket
c = client.Configuration.get_default_copy()
def told(path, *protocols):
    return websocket.create_connection(
        c.host.replace('https:', 'wss:') + path, subprotocols=list(protocols), timeout=20,
        sslopt={'ca_certs': c.ssl_ca_cert, 'certfile': c.cert_file, 'keyfile': c.key_file})
log = '/api/v1/namespaces/default/pods/web/log?tailLines=1'
plain = told(log, 'binary.k8s.io')
assert plain.recv() == b'', 'first, an empty message'
assert b'GET /page HTTP/1.0' in plain.recv()
coded = told(log, 'base64.binary.k8s.io')
assert coded.recv() == '' and b'GET /page HTTP/1.0' in base64.b64decode(coded.recv())
seen = json.loads(told('/api/v1/namespaces/default/pods?watch=1').recv())
assert (seen['type'], seen['object']['metadata']['name']) == ('ADDED', 'web'), seen
print('all is well')
"#;

#[test]
fn the_python_clients_streams_carry_commands_and_connections() {
    let lab = Lab::up();
    lab.run("web", "cd /tmp; echo a page > page; exec python3 -m http.server 8080");
    eventually(Duration::from_secs(30), "the server listens", || {
        let connect = "import socket; socket.create_connection(('127.0.0.1', 8080))";
        let ran = lab.kubectl(&["exec", "web", "--", "python3", "-c", connect]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    let output = Command::new("/usr/bin/python3")
        .env("PYTHONPATH", clients::python())
        .env("KUBECONFIG", lab.home.path().join(format!("state/minilab/{}/kubeconfig", lab.name)))
        .args(["-c", SCRIPT])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stdout), "all is well\n");
}
