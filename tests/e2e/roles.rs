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
    eventually(Duration::from_secs(30), "the nodes are there again", || {
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

/// A role's pid and state, as status has them.
fn standing(lab: &Lab, role: &str) -> (i64, String) {
    let status = lab.status();
    let roles = status["roles"].as_array().unwrap();
    let found = roles.iter().find(|one| one["name"] == role).unwrap();
    (found["pid"].as_i64().unwrap_or_default(), found["state"].as_str().unwrap().to_owned())
}

#[test]
fn a_role_that_hangs_is_noticed_by_its_liveness_probe_and_restarted() {
    let lab = Lab::up();
    let manifest = "/etc/kubernetes/manifests/kube-scheduler.yaml";
    let text = lab.on("control", &["cat", manifest]);
    assert!(text.contains("livenessProbe:\n      failureThreshold: 8\n"), "as kubeadm has it: {text}");
    let (first, _) = standing(&lab, "kube-scheduler");
    // An administrator with less patience.
    let quick = "s/failureThreshold: 8/failureThreshold: 3/;s/initialDelaySeconds: 10/initialDelaySeconds: 1/;\
                 s/periodSeconds: 10/periodSeconds: 1/;s/timeoutSeconds: 15/timeoutSeconds: 4/";
    lab.on("control", &["sed", "-i", quick, manifest]);
    let soon = Duration::from_secs(60);
    let before = eventually(soon, "the scheduler runs from the new manifest", || {
        match standing(&lab, "kube-scheduler") {
            (pid, state) if pid != first && pid != 0 && state == "ready" => Ok(pid),
            other => Err(format!("{other:?}")),
        }
    });
    // The control: probed every second, one that answers is left alone.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(standing(&lab, "kube-scheduler"), (before, "ready".into()));
    assert!(Command::new("kill").args(["-STOP", &before.to_string()]).status().unwrap().success());
    eventually(soon, "status says that it does not answer", || match standing(&lab, "kube-scheduler") {
        (pid, state) if pid == before && state == "unhealthy" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    eventually(soon, "another one serves", || match standing(&lab, "kube-scheduler") {
        (pid, state) if pid != before && pid != 0 && state == "ready" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    lab.run("placed", "sleep 1000");
}
