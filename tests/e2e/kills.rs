//! `kill -9` of anything: what was acknowledged stays, what runs goes on, what died is back.

use std::time::{Duration, Instant};

use crate::kit::{Lab, eventually, process};

/// Waits until a role has another, ready process than `old`; it has two seconds.
fn back(lab: &Lab, role: &str, host: &str, old: i32) {
    eventually(Duration::from_secs(2), &format!("{role} is back"), || {
        let status = lab.status();
        let roles = status["roles"].as_array().ok_or("no roles")?.clone();
        let entry =
            roles.iter().find(|entry| entry["name"] == role && entry["host"] == host).ok_or("not listed")?;
        match entry["ready"] == true && entry["pid"].as_i64().is_some_and(|pid| pid != i64::from(old)) {
            true => Ok(()),
            false => Err(entry.to_string()),
        }
    });
}

fn kill(lab: &Lab, role: &str, host: &str) {
    let pid = lab.pid(role, host);
    process::kill(pid);
    back(lab, role, host, pid);
}

/// What must not change about a running pod: container id, restarts, start.
fn identity(lab: &Lab, pod: &str) -> String {
    let status = lab.object(&["pod", pod])["status"]["containerStatuses"][0].clone();
    format!(
        "{} {} {}",
        status["containerID"], status["restartCount"], status["state"]["running"]["startedAt"]
    )
}

#[test]
fn every_role_is_back_within_two_seconds_and_nothing_acknowledged_is_lost() {
    let lab = Lab::up();
    lab.run("steady", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done");
    let before = identity(&lab, "steady");
    for (round, (role, host)) in [
        ("kube-apiserver", "control"),
        ("kube-controller-manager", "control"),
        ("kube-scheduler", "control"),
        ("kubelet", "node-1"),
        ("kubelet", "node-2"),
        ("kube-proxy", "node-1"),
        ("kube-proxy", "node-2"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("before-{round}");
        lab.kubectl(&["create", "configmap", &name, "--from-literal=a=b"]).ok();
        kill(&lab, role, host);
        lab.kubectl(&["get", "configmap", &name]).ok();
    }
    assert_eq!(identity(&lab, "steady"), before);
    let logs = lab.kubectl(&["logs", "steady"]).ok();
    let numbers: Vec<u64> = logs.lines().map(|line| line["line ".len()..].parse().unwrap()).collect();
    assert!(numbers.iter().zip(1..).all(|(have, want)| *have == want), "a log line is missing or doubled");
    lab.run("after", "sleep infinity");
    lab.kubectl(&["create", "deployment", "after", "--image=minilab/toolbox", "--", "sleep", "infinity"])
        .ok();
    lab.kubectl(&["rollout", "status", "deployment/after", "--timeout=30s"]).ok();
}

#[test]
fn a_container_that_ends_while_the_kubelet_is_dead_is_reported_with_its_exit_code() {
    let lab = Lab::up();
    lab.run("ends", "sleep 1; exit 7");
    let node = lab.object(&["pod", "ends"])["spec"]["nodeName"].as_str().unwrap().to_owned();
    lab.minilab(&["stop", &format!("kubelet@{node}")]).ok();
    std::thread::sleep(Duration::from_millis(1500));
    lab.minilab(&["start", &format!("kubelet@{node}")]).ok();
    eventually(Duration::from_secs(30), "the real exit code", || {
        let state = lab.object(&["pod", "ends"])["status"]["containerStatuses"][0]["state"].clone();
        if state["terminated"]["exitCode"] == 7 { Ok(()) } else { Err(state.to_string()) }
    });
}

#[test]
fn a_cluster_ip_connection_survives_kubelet_proxy_and_api_server() {
    let lab = Lab::up();
    let echo = "import socketserver as s
class H(s.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
s.ThreadingTCPServer(('', 9000), H).serve_forever()";
    lab.apply(
        &serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "echo", "labels": {"app": "echo"}},
            "spec": {"nodeName": "node-2", "containers": [
                {"name": "echo", "image": "minilab/toolbox", "command": ["python3", "-c", echo]}]}})
        .to_string(),
    );
    lab.kubectl(&["expose", "pod", "echo", "--port=9000"]).ok();
    lab.wait_ready("echo");
    let address = lab.object(&["service", "echo"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let client = "import socket, sys, time
for attempt in range(100):
    try: c = socket.create_connection((sys.argv[1], 9000), 5); break
    except OSError: time.sleep(0.05)
f = c.makefile('rw'); n = 0
while True:
    n += 1; f.write('%d\\n' % n); f.flush()
    assert f.readline() == '%d\\n' % n
    print('ok', n, flush=True); time.sleep(0.05)";
    lab.apply(
        &serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"},
            "spec": {"nodeName": "node-1", "restartPolicy": "Never", "containers": [
                {"name": "client", "image": "minilab/toolbox", "command": ["python3", "-c", client, address]}]}})
        .to_string(),
    );
    lab.wait_ready("client");
    let answered = |lab: &Lab| lab.kubectl(&["logs", "client"]).ok().lines().count();
    eventually(Duration::from_secs(10), "a first answer", || {
        if answered(&lab) > 0 { Ok(()) } else { Err("none".into()) }
    });
    for (role, host) in [
        ("kube-proxy", "node-1"),
        ("kubelet", "node-1"),
        ("kubelet", "node-2"),
        ("kube-apiserver", "control"),
        ("kube-proxy", "node-2"),
    ] {
        kill(&lab, role, host);
        let before = answered(&lab);
        eventually(Duration::from_secs(30), "the connection goes on", || {
            if answered(&lab) > before {
                Ok(())
            } else {
                Err(lab.kubectl(&["logs", "client", "--tail=3"]).stdout)
            }
        });
    }
    assert_eq!(lab.object(&["pod", "client"])["status"]["containerStatuses"][0]["restartCount"], 0);
}

#[test]
fn kill_of_the_supervisor_or_keeper_takes_everything_and_up_brings_the_objects_back() {
    for victim in ["supervisor", "keeper"] {
        let lab = Lab::up();
        lab.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).ok();
        // A pod that may restart: one that may not is over when its node's power is cut, as upstream.
        lab.kubectl(&["run", "pod", "--image=minilab/toolbox", "--", "sleep", "infinity"]).ok();
        lab.wait_ready("pod");
        let members = process::tree(lab.keeper());
        assert!(members.len() > 12, "{members:?}");
        let pid = match victim {
            "keeper" => lab.keeper(),
            _ => {
                members
                    .iter()
                    .find(|one| one.command.starts_with("minilab-superv"))
                    .expect("a supervisor")
                    .pid
            }
        };
        let at = Instant::now();
        process::kill(pid);
        eventually(Duration::from_secs(1), &format!("all gone after the {victim}"), || {
            let left = process::alive(&members);
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        eprintln!("{victim}: all gone in {:?}", at.elapsed());
        assert_eq!(lab.minilab(&["status"]).code, 4);
        lab.minilab(&["up"]).ok();
        lab.kubectl(&["get", "configmap", "kept"]).ok();
        lab.wait_ready("pod");
    }
}
