//! Konnectivity: every verb through the tunnel while wire lets nothing from control to the nodes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::kit::{Lab, clients, eventually, process, rounds};

/// Long enough for a busy machine; a broken tunnel never heals.
const PATIENCE: Duration = Duration::from_secs(60);
const TUNNEL: &[(&str, &str)] =
    &[("apiserver-egress.tunnel", "hardened"), ("apiserver-egress.agent-authentication", "hardened")];

/// A lab with a connected agent on every node and a pod that talks.
fn tunnelled() -> Lab {
    let lab = Lab::with(TUNNEL);
    connected(&lab, 2);
    lab.run(
        "web",
        "mkdir -p /tmp/w; echo through the tunnel >/tmp/w/index.html; \
         (cd /tmp/w && exec python3 -m http.server 8080 >/dev/null 2>&1) & \
         i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done",
    );
    lab
}

fn metrics(lab: &Lab) -> String {
    lab.on("control", &["curl", "-s", "-m", "5", "http://127.0.0.1:8134/metrics"])
}

/// Waits for this many agents.
fn connected(lab: &Lab, agents: usize) {
    let line = format!("konnectivity_network_proxy_server_ready_backend_connections {agents}");
    eventually(PATIENCE, "agents connect", || match metrics(lab) {
        page if page.lines().any(|own| own == line) => Ok(()),
        page => Err(page),
    });
}

/// `kubectl logs` gives a line of the pod's.
pub fn logs(lab: &Lab, pod: &str) -> Result<(), String> {
    let ran = lab.kubectl(&["logs", pod, "--tail=1"]);
    match ran.code == 0 && ran.stdout.starts_with("line ") {
        true => Ok(()),
        false => Err(format!("{}{}", ran.stdout, ran.stderr)),
    }
}

#[test]
fn every_verb_goes_through_the_tunnel_while_wire_lets_nothing_else_pass() {
    let lab = tunnelled();
    // What is to be shown: from control nothing answers, while the same port answers a neighbour.
    let kubelet = "https://192.0.2.11:10250/healthz";
    let answers = |host: &str, limit: &str| {
        lab.minilab(&["exec", host, "--", "curl", "-sk", "-m", limit, "-o", "/dev/null", kubelet]).code == 0
    };
    assert!(answers("node-2", "30") && !answers("control", "3"), "wire drops what control opens");
    logs(&lab, "web").unwrap();
    for wires in ["true", "false"] {
        let mut exec = lab.kubectl_command(clients::any());
        exec.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", wires).args(["exec", "-i", "web", "--", "cat"]);
        let mut child = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&vec![b'x'; 30_000]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout == vec![b'x'; 30_000]);
    }
    let mut attached = follow(&lab, &["attach", "web"]);
    assert!(first_line(&mut attached).starts_with("line "));
    end(attached);
    let page = "through the tunnel\n";
    eventually(PATIENCE, "the pod answers through the proxy", || {
        let ran = lab.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/"]);
        if ran.stdout == page { Ok(()) } else { Err(ran.stderr) }
    });
    port_forward(&lab);
    assert_eq!(lab.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/healthz"]).ok(), "ok");
    lab.kubectl(&["label", "pod", "web", "app=web"]).ok();
    lab.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]).ok();
    eventually(PATIENCE, "the service answers through the proxy", || {
        let ran = lab.kubectl(&["get", "--raw", "/api/v1/namespaces/default/services/web:80/proxy/"]);
        if ran.stdout == page { Ok(()) } else { Err(ran.stderr) }
    });
    own_agent(&lab);
}

/// A pod is reached through its own node's agent, by that agent's own count.
fn own_agent(lab: &Lab) {
    let node = lab.object(&["pod", "web"])["spec"]["nodeName"].as_str().unwrap().to_owned();
    let dials = |node: &str| {
        let page = lab.on(node, &["curl", "-s", "-m", "5", "http://127.0.0.1:8134/metrics"]);
        let name = "konnectivity_network_proxy_agent_dial_duration_seconds_count ";
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.parse::<u64>().unwrap()
    };
    let other = if node == "node-1" { "node-2" } else { "node-1" };
    let before = (dials(&node), dials(other));
    for _ in 0..5 {
        lab.kubectl(&["get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/"]).ok();
    }
    assert_eq!((dials(&node), dials(other)), (before.0 + 5, before.1));
}

pub fn port_forward(lab: &Lab) {
    let mut child = follow(lab, &["port-forward", "pod/web", ":8080"]);
    let line = first_line(&mut child);
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("through the tunnel\n"), "{answer}");
    end(child);
}

pub fn follow(lab: &Lab, arguments: &[&str]) -> Child {
    let mut command = lab.kubectl_command(clients::any());
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

pub fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

pub fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn tunnels_come_back_after_any_end_dies_and_cancelled_streams_leave_nothing() {
    let lab = tunnelled();
    for _ in 0..rounds(1000) {
        let mut child = follow(&lab, &["logs", "-f", "web"]);
        assert!(first_line(&mut child).starts_with("line "));
        end(child);
    }
    eventually(PATIENCE, "nothing is left of cancelled streams", || {
        let page = metrics(&lab);
        let none = ["established_connections 0", "grpc_connections{service_method=\"Proxy\"} 0"];
        match none.iter().all(|line| page.contains(&format!("konnectivity_network_proxy_server_{line}\n"))) {
            true => Ok(()),
            false => Err(page),
        }
    });
    // The server.
    let old = lab.pid("konnectivity-server", "control");
    process::kill(old);
    eventually(PATIENCE, "logs after the server's death", || logs(&lab, "web"));
    assert_ne!(lab.pid("konnectivity-server", "control"), old);
    // Both agents at once, and in between the API's own words.
    lab.kubectl(&["delete", "pod", "-n", "kube-system", "-l", "k8s-app=konnectivity-agent", "--wait=false"])
        .ok();
    eventually(PATIENCE, "logs after the agents' death", || logs(&lab, "web"));
    lab.kubectl(&["delete", "daemonset", "-n", "kube-system", "konnectivity-agent"]).ok();
    let text = eventually(PATIENCE, "nobody to ask", || match lab.kubectl(&["logs", "web", "--tail=1"]) {
        ran if ran.stderr.contains("No agent available") => Ok(ran.stderr),
        ran => Err(format!("{}{}", ran.stdout, ran.stderr)),
    });
    assert!(text.starts_with("Error from server: Get \"https://192.0.2.1"), "{text}");
    assert!(text.trim_end().ends_with(": No agent available"), "{text}");
}

/// While this runs nothing that is sent to konnectivity-server's agents' port crosses wire.
fn silence(lab: &Lab) -> Child {
    let mut command = lab.command(crate::kit::lab::binary());
    command.args(["exec", "wire", "--", "attacker", "silence", "198.51.100.2:8132"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert!(first_line(&mut child).contains("ready"));
    child
}

/// The network is back: the attacker ends when its input does.
fn break_silence(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn tunnels_heal_after_silence_after_an_agent_that_is_half_gone_and_go_on_without_a_dead_host() {
    let lab = Lab::with(TUNNEL);
    connected(&lab, 2);
    for (node, pod) in [("node-1", "one"), ("node-2", "two")] {
        lab.run_on(node, pod, "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done");
    }
    // Silence: what is in flight ends with an error and does not hang.
    let mut following = follow(&lab, &["logs", "-f", "one"]);
    assert!(first_line(&mut following).starts_with("line "));
    let silent = silence(&lab);
    let ended = eventually(PATIENCE, "a stream in flight ends", || {
        following.try_wait().unwrap().ok_or_else(|| "it hangs".to_owned())
    });
    assert!(!ended.success(), "a log that was cut off is told from one that ended");
    std::thread::sleep(Duration::from_secs(rounds(30) as u64));
    break_silence(silent);
    eventually(PATIENCE, "logs after silence", || logs(&lab, "one").and_then(|()| logs(&lab, "two")));
    connected(&lab, 2);
    // Half gone: the agents die while nobody can hear of it; the server is left with their streams.
    let silent = silence(&lab);
    let agents = process::tree(lab.keeper()).into_iter().filter(|one| one.command.starts_with("proxy-agent"));
    let agents: Vec<_> = agents.collect();
    assert_eq!(agents.len(), 2, "{agents:?}");
    agents.iter().for_each(|agent| process::kill(agent.pid));
    break_silence(silent);
    eventually(PATIENCE, "logs after half-open agents", || {
        logs(&lab, "one").and_then(|()| logs(&lab, "two"))
    });
    connected(&lab, 2);
    // A dead host takes its own tunnel alone.
    let hosts = lab.status()["hosts"].as_array().unwrap().clone();
    let host = hosts.iter().find(|host| host["name"] == "node-1").unwrap()["pid"].as_i64().unwrap();
    process::kill(host as i32);
    logs(&lab, "two").unwrap();
    connected(&lab, 1);
}
