//! SSH tunnels, as they were: every verb through them while wire lets nothing but port 22 pass, and who it is
//! that the API server logs in to.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::kit::{Lab, clients, eventually};
use crate::tunnels::{end, first_line, follow, logs, port_forward};

const PATIENCE: Duration = Duration::from_secs(60);

fn attack(lab: &Lab) -> Value {
    let ran = lab.minilab(&["attack", "apiserver-egress.ssh-host-key", "-o", "json"]);
    serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr))
}

fn verdict(report: &Value) -> (&str, &str, &str) {
    let word = |name: &str| report[name].as_str().unwrap_or_default();
    (word("verdict"), word("expected"), word("decides"))
}

#[test]
fn every_verb_goes_through_ssh_while_wire_lets_nothing_but_port_22_pass() {
    let lab = Lab::up();
    lab.run(
        "web",
        "mkdir -p /tmp/w; echo through the tunnel >/tmp/w/index.html; \
         (cd /tmp/w && exec python3 -m http.server 8080 >/dev/null 2>&1) & \
         i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done",
    );
    let egress = "apiserver-egress.ssh-host-key";
    let elsewhere = attack(&lab);
    assert_eq!(verdict(&elsewhere), ("defeated", "defeated", "apiserver-egress.tunnel"), "{elsewhere:#}");
    lab.minilab(&["harden", "kubelet-access", "--with", "ssh"]).fails_with(2);
    let done = lab.minilab(&["harden", "apiserver-egress.tunnel", "--with", "ssh"]).ok();
    assert!(done.contains("--ssh-user=root") && done.contains("+role sshd@node-2"), "{done}");
    verbs(&lab);
    wire(&lab);

    // The fake sshd's turn: believed, and its log with it while nobody looks at the kubelet's certificate.
    let open = attack(&lab);
    assert_eq!(verdict(&open), ("compromised", "compromised", egress), "{open:#}");
    assert!(open["observed"].as_str().unwrap().contains("printed what the attacker wrote"), "{open:#}");
    eventually(PATIENCE, "the real node's logs return", || logs(&lab, "web"));
    lab.minilab(&["harden", "apiserver-to-kubelet"]).ok();
    let sealed = attack(&lab);
    assert_eq!(verdict(&sealed), ("compromised", "compromised", egress), "{sealed:#}");
    assert!(sealed["observed"].as_str().unwrap().contains("only ciphertext"), "{sealed:#}");
    assert!(sealed["evidence"].to_string().contains("x509: "), "{sealed:#}");
    lab.minilab(&["harden", egress]).ok();
    let pinned = attack(&lab);
    assert_eq!(verdict(&pinned), ("defeated", "defeated", egress), "{pinned:#}");
    assert!(pinned["evidence"].to_string().contains("knownhosts: key mismatch"), "{pinned:#}");
    eventually(PATIENCE, "logs with known keys", || logs(&lab, "web"));

    none_open(&lab);
    lab.minilab(&["soften", "apiserver-egress"]).ok();
    logs(&lab, "web").unwrap();
    assert_eq!(lab.on("control", &["find", "/etc/srv", "-type", "f"]), "");
}

fn verbs(lab: &Lab) {
    logs(lab, "web").unwrap();
    for wires in ["true", "false"] {
        let mut exec = lab.kubectl_command(clients::any());
        exec.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", wires).args(["exec", "-i", "web", "--", "cat"]);
        let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&vec![b'x'; 30_000]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout == vec![b'x'; 30_000]);
    }
    let mut attached = follow(lab, &["attach", "web"]);
    assert!(first_line(&mut attached).starts_with("line "));
    end(attached);
    port_forward(lab);
    assert_eq!(lab.kubectl(&["get", "--raw", "/api/v1/nodes/node-2/proxy/healthz"]).ok(), "ok");
    eventually(PATIENCE, "the pod answers through the proxy", || {
        let ran = lab.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/"]);
        if ran.stdout == "through the tunnel\n" { Ok(()) } else { Err(ran.stderr) }
    });
}

/// From control only sshd answers, while a neighbour reaches the kubelet.
fn wire(lab: &Lab) {
    let kubelet = "https://192.0.2.11:10250/healthz";
    let answers = |host: &str, limit: &str| {
        lab.minilab(&["exec", host, "--", "curl", "-sk", "-m", limit, "-o", "/dev/null", kubelet]).code == 0
    };
    assert!(answers("node-2", "30") && !answers("control", "3"), "wire drops what control opens");
}

/// Upstream's old text, for both ways a kubelet's answer is told.
fn none_open(lab: &Lab) {
    for node in ["sshd@node-1", "sshd@node-2"] {
        lab.minilab(&["stop", node]).ok();
    }
    let text = "No SSH tunnels currently open. Were the targets able to accept an ssh-key for user \"root\"?";
    eventually(PATIENCE, "nobody to ask", || match lab.kubectl(&["logs", "web", "--tail=1"]) {
        ran if ran.stderr.contains(text) => Ok(()),
        ran => Err(format!("{}{}", ran.stdout, ran.stderr)),
    });
    let known = lab.minilab(&["explain", text]).ok();
    assert!(known.contains("apiserver-egress"), "{known}");
    for node in ["sshd@node-1", "sshd@node-2"] {
        lab.minilab(&["start", node]).ok();
    }
    eventually(PATIENCE, "logs after sshd is back", || logs(lab, "web"));
}
