//! Stopping and starting roles, and clients that go away in the middle of an answer.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::kit::{Lab, eventually};

fn port(lab: &Lab) -> u16 {
    let server = lab.status()["server"].as_str().unwrap().to_owned();
    server.rsplit(':').next().unwrap().parse().unwrap()
}

fn restarts(lab: &Lab, role: &str) -> u64 {
    let status = lab.status();
    let roles = status["roles"].as_array().unwrap();
    roles.iter().find(|one| one["name"] == role).unwrap()["restarts"].as_u64().unwrap()
}

#[test]
fn a_stopped_role_refuses_its_callers_and_serves_them_when_it_is_started() {
    let lab = Lab::up();
    let at = ("127.0.0.1", port(&lab));
    TcpStream::connect(at).unwrap();
    lab.minilab(&["stop", "kube-apiserver"]).ok();
    assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let again = lab.minilab(&["stop", "kube-apiserver"]);
    assert!(again.stderr.contains("was not running"), "{}", again.stderr);
    lab.minilab(&["start", "kube-apiserver"]).ok();
    assert_eq!(restarts(&lab, "kube-apiserver"), 0, "a stop and a start are no restart");
    eventually(Duration::from_secs(5), "the nodes are there again", || {
        match lab.kubectl(&["get", "nodes"]).stdout {
            nodes if nodes.matches(" Ready").count() == 2 => Ok(()),
            nodes => Err(nodes),
        }
    });
}

#[test]
fn clients_that_vanish_in_the_middle_of_an_answer_end_nothing() {
    let lab = Lab::up();
    let script = "
import socket, ssl, struct, sys
context = ssl._create_unverified_context()
for _ in range(60):
    peer = context.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))))
    peer.sendall(b'GET /livez?verbose HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' * 3)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    peer.close()
";
    let gone = Command::new("python3").args(["-c", script, &port(&lab).to_string()]).status().unwrap();
    assert!(gone.success());
    assert_eq!(lab.kubectl(&["get", "--raw", "/livez"]).ok(), "ok");
    assert_eq!(restarts(&lab, "kube-apiserver"), 0);
}
