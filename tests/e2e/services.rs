//! The service network: the `kubernetes` address, rotation, affinity, node ports, UDP, DNS, policies.

use std::time::{Duration, Instant};

use crate::kit::capture::{Capture, Segment};
use crate::kit::{Lab, eventually};

const SOON: Duration = Duration::from_secs(30);

/// A pod that runs a Python program on a node.
fn python(lab: &Lab, name: &str, node: &str, program: &str) {
    labelled(lab, name, node, program, serde_json::json!({"app": name}));
}

fn labelled(lab: &Lab, name: &str, node: &str, program: &str, labels: serde_json::Value) {
    lab.apply(
        &serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "c", "image": "minilab/toolbox", "command": ["python3", "-u", "-c", program]}]},
        })
        .to_string(),
    );
    lab.wait_ready(name);
}

fn logs(lab: &Lab, pod: &str) -> String {
    lab.kubectl(&["logs", "--tail=40", pod]).stdout
}

/// Waits for a line of a pod's log that comes after now and says this.
fn says(lab: &Lab, pod: &str, what: &str) {
    let before = lab.kubectl(&["logs", pod]).stdout.lines().count();
    eventually(SOON, &format!("{pod} says {what:?}"), || {
        let log = lab.kubectl(&["logs", pod]).stdout;
        // One line may have been under way.
        match log.lines().skip(before + 1).any(|line| line.contains(what)) {
            true => Ok(()),
            false => Err(logs(lab, pod)),
        }
    });
}

/// A program that does `attempt` again and again and prints what comes of it.
fn again(attempt: &str) -> String {
    format!(
        "
import os, socket, ssl, time, urllib.request as u
def attempt():
{}
while True:
    try: print('%.3f' % time.time(), 'ok', attempt())
    except Exception as e: print('%.3f' % time.time(), 'failed', e)
    time.sleep(0.05)
",
        attempt.lines().map(|line| format!("    {line}\n")).collect::<String>()
    )
}

#[test]
fn a_pod_reaches_the_api_server_by_name_and_only_while_the_rules_are_there() {
    let lab = Lab::up();
    let ask = "d = '/var/run/secrets/kubernetes.io/serviceaccount/'
r = u.Request('https://kubernetes.default.svc/version', headers={'Authorization': 'Bearer ' + open(d + 'token').read()})
return u.urlopen(r, timeout=2, context=ssl.create_default_context(cafile=d + 'ca.crt')).status";
    python(&lab, "ask", "node-1", &again(ask));
    // By address: without rules the name takes its resolver's long patience to fail.
    let vip = "return socket.create_connection(('10.96.0.1', 443), timeout=1).close()";
    python(&lab, "vip", "node-1", &again(vip));
    says(&lab, "ask", "ok 200");

    let (node, wire) = (Capture::start(&lab, "node-1"), Capture::start(&lab, "wire"));
    says(&lab, "ask", "ok 200");
    let (node, wire) = (node.stop(), wire.stop());
    let pod = lab.object(&["pod", "ask"])["status"]["podIP"].as_str().unwrap().to_owned();
    let opened = |seen: &[Segment], to: &str| -> Vec<String> {
        let to: std::net::SocketAddrV4 = to.parse().unwrap();
        let new = seen.iter().filter(|one| one.opens && one.to == to);
        new.map(|one| format!("{} {}", one.interface, one.from.ip())).collect()
    };
    let on_veth = opened(&node, "10.96.0.1:443");
    assert!(
        on_veth.iter().any(|seen| seen.starts_with("veth") && seen.ends_with(&pod)),
        "the pod's link carries the service's address: {on_veth:?}"
    );
    assert!(!opened(&wire, "198.51.100.2:6443").is_empty(), "the wire carries the API server's");
    assert_eq!(opened(&wire, "10.96.0.1:443"), Vec::<String>::new(), "no service address leaves the node");

    lab.minilab(&["stop", "kube-proxy@node-1"]).ok();
    says(&lab, "vip", "ok");
    lab.on("node-1", &["kube-proxy", "--cleanup"]);
    says(&lab, "vip", "failed");
    lab.minilab(&["start", "kube-proxy@node-1"]).ok();
    says(&lab, "vip", "ok");
    says(&lab, "ask", "ok 200");
}

#[test]
fn a_connection_outlives_kube_proxy_and_a_killed_pod_leaves_rotation_within_a_second() {
    let lab = Lab::up();
    // It goes on serving while it is asked to end, so that only the rules can keep clients away.
    let serve = "
import http.server, os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        b = os.uname().nodename.encode()
        self.send_response(200); self.send_header('Content-Length', len(b)); self.end_headers(); self.wfile.write(b)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('', 8080), H).serve_forever()
";
    lab.apply(
        &serde_json::json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 8, "containers": [{
                    "name": "c", "image": "minilab/toolbox", "command": ["python3", "-c", serve],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}]}}},
        })
        .to_string(),
    );
    lab.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]).ok();
    lab.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    let vip = lab.object(&["service", "web"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let hold = format!(
        "
import http.client, time
c = http.client.HTTPConnection('{vip}', 80, timeout=5)
n = 0
while True:
    c.request('GET', '/'); c.getresponse().read(); n += 1
    c.auto_open = 0
    print('held', n); time.sleep(0.05)
"
    );
    python(&lab, "hold", "node-1", &hold);
    python(
        &lab,
        "ask",
        "node-1",
        &again(&format!("return u.urlopen('http://{vip}/', timeout=2).read().decode()")),
    );
    let answering = |log: &str| {
        let names = log.lines().filter_map(|line| line.split(" ok ").nth(1).map(str::to_owned));
        names.collect::<std::collections::BTreeSet<String>>()
    };
    eventually(SOON, "all three answer", || {
        let names = answering(&logs(&lab, "ask"));
        if names.len() == 3 { Ok(()) } else { Err(format!("{names:?}")) }
    });

    lab.kubectl(&["expose", "deployment", "web", "--name=later", "--port=80", "--target-port=8080"]).ok();
    eventually(SOON, "endpoints say since when they are due", || {
        let of_later = ["get", "endpointslices", "-l", "kubernetes.io/service-name=later", "-o", "json"];
        let slices = lab.kubectl(&of_later).ok();
        if slices.contains("endpoints.kubernetes.io/last-change-trigger-time") { Ok(()) } else { Err(slices) }
    });
    let told =
        |path: &str| lab.on("node-1", &["curl", "-s", "-m", "5", &format!("http://127.0.0.1:10249/{path}")]);
    assert_eq!(told("proxyMode"), "nftables");
    let metrics = told("metrics");
    for name in [
        "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} ",
        "kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"0.25\"} ",
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 0",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(&format!("\n{name}")), "{name} is not in\n{metrics}");
    }

    let killed = lab.pid("kube-proxy", "node-1");
    crate::kit::process::kill(killed);
    eventually(SOON, "kube-proxy is back", || match lab.pid("kube-proxy", "node-1") {
        pid if pid != killed => Ok(()),
        _ => Err("not yet".into()),
    });
    says(&lab, "hold", "held");
    assert_eq!(lab.object(&["pod", "hold"])["status"]["containerStatuses"][0]["restartCount"], 0);

    let victim = answering(&logs(&lab, "ask")).into_iter().next().unwrap();
    lab.kubectl(&["delete", "pod", &victim, "--wait=false"]).ok();
    let deleted = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    std::thread::sleep(Duration::from_secs(4));
    let log = lab.kubectl(&["logs", "ask"]).ok();
    let late = |line: &&str| {
        line.split(' ').next().and_then(|at| at.parse::<f64>().ok()).is_some_and(|at| at > deleted + 1.0)
    };
    let after: Vec<&str> = log.lines().filter(late).collect();
    assert!(after.len() > 10, "it goes on asking:\n{log}");
    assert!(
        after.iter().all(|line| !line.contains(&victim)),
        "{victim} still answers a second later:\n{log}"
    );
    assert!(!log.contains("failed"), "nobody noticed:\n{log}");

    lab.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#]).ok();
    eventually(SOON, "one pod answers", || {
        let names = answering(&lab.kubectl(&["logs", "ask", "--tail=25"]).stdout);
        if names.len() == 1 { Ok(()) } else { Err(format!("{names:?}")) }
    });
}

#[test]
fn node_ports_udp_hairpin_and_missing_endpoints_behave() {
    let lab = Lab::up();
    let echo = "
import socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('', 9000))
def udp():
    while True:
        d, a = u.recvfrom(2000); u.sendto(b'udp ' + a[0].encode(), a)
threading.Thread(target=udp, daemon=True).start()
t = socket.create_server(('', 9000))
while True:
    c, a = t.accept(); c.sendall(b'tcp ' + a[0].encode()); c.close()
";
    python(&lab, "echo", "node-2", echo);
    lab.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  selector: {app: echo}
  ports:
  - {name: tcp, port: 9000, protocol: TCP, nodePort: 30900}
  - {name: udp, port: 9000, protocol: UDP, nodePort: 30900}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
",
    );
    let tcp = |target: &str, port: u16| {
        format!(
            "import socket; c = socket.create_connection(('{target}', {port}), timeout=2); print(c.recv(99).decode())"
        )
    };
    let from_control =
        |node: &str| lab.minilab(&["exec", "control", "--", "python3", "-c", &tcp(node, 30900)]).stdout;
    eventually(SOON, "the node port answers on the other node too", || match from_control("192.0.2.11") {
        answer if answer.contains("tcp 192.0.2.11") => Ok(()),
        other => Err(other),
    });
    lab.kubectl(&["patch", "service", "echo", "-p", r#"{"spec":{"externalTrafficPolicy":"Local"}}"#]).ok();
    eventually(SOON, "with policy Local the node that has the pod keeps the client's address", || {
        match from_control("192.0.2.12") {
            answer if answer.contains("tcp 198.51.100.2") => Ok(()),
            other => Err(other),
        }
    });
    assert!(!from_control("192.0.2.11").contains("tcp"), "and the other one does not answer");

    let address =
        |name: &str| lab.object(&["service", name])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let (echo, nobody) = (address("echo"), address("nobody"));
    let udp = format!(
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(b'x', ('{echo}', 9000))\nreturn s.recv(99).decode()"
    );
    python(&lab, "udp", "node-1", &again(&udp));
    says(&lab, "udp", "ok udp 10.244.");
    python(
        &lab,
        "refused",
        "node-1",
        &again(&format!("return socket.create_connection(('{nobody}', 80), timeout=2)")),
    );
    says(&lab, "refused", "Connection refused");
    python(
        &lab,
        "unknown",
        "node-1",
        &again(&format!("return socket.create_connection(('{echo}', 1), timeout=2)")),
    );
    says(&lab, "unknown", "Connection refused");

    let itself = again(
        "s = socket.create_server(('', 9100), reuse_port=True)\nc = socket.create_connection((os.environ['SELF'], 9100), timeout=2)\ns.settimeout(2)\na = s.accept()[1][0]\ns.close()\nreturn 'hairpin'",
    );
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: self}\n";
    lab.apply(&format!("{service}spec: {{selector: {{app: self}}, ports: [{{port: 9100}}]}}\n"));
    let own = address("self");
    python(&lab, "self", "node-1", &itself.replace("os.environ['SELF']", &format!("'{own}'")));
    says(&lab, "self", "ok hairpin");
    host_port(&lab, &tcp);
}

/// A port of the node leads into the pod while there is one, and the pod knows its whole name.
fn host_port(lab: &Lab, tcp: &dyn Fn(&str, u16) -> String) {
    let door = "
import os, socket
t = socket.create_server(('', 9000))
while True:
    c, a = t.accept(); c.sendall((os.uname().nodename + ' sees ' + a[0]).encode()); c.close()
";
    lab.apply(
        &serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "door"},
            "spec": {
                "nodeName": "node-1", "terminationGracePeriodSeconds": 0,
                "hostname": "front", "subdomain": "house", "setHostnameAsFQDN": true,
                "containers": [{"name": "c", "image": "minilab/toolbox", "command": ["python3", "-u", "-c", door],
                    "ports": [{"containerPort": 9000, "hostPort": 12345}]}],
            },
        })
        .to_string(),
    );
    let ask = || lab.minilab(&["exec", "control", "--", "python3", "-c", &tcp("192.0.2.11", 12345)]);
    eventually(SOON, "the node's port leads into the pod", || match ask().stdout {
        answer if answer.contains("front.house.default.svc.cluster.local sees 198.51.100.2") => Ok(()),
        other => Err(other),
    });
    lab.kubectl(&["delete", "pod", "door"]).ok();
    eventually(SOON, "and to nobody without it", || match ask().stderr {
        refused if refused.contains("Connection refused") => Ok(()),
        other => Err(other),
    });
}

#[test]
fn names_of_services_ports_pods_and_aliases_are_found() {
    let lab = Lab::up();
    lab.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: sql, port: 5432}]
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: kubernetes.default.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec:
  hostname: db-0
  subdomain: db
  containers: [{name: c, image: minilab/toolbox, command: [sleep, infinity]}]
",
    );
    lab.wait_ready("db-0");
    let pod = lab.object(&["pod", "db-0"])["status"]["podIP"].as_str().unwrap().to_owned();
    let look = "
def name(n):
    try: return socket.gethostbyname(n)
    except OSError as e: return str(e)
def ask(n, t):
    q = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + b''.join(bytes([len(l)]) + l.encode() for l in n.split('.')) + b'\\0' + bytes([0, t, 0, 1])
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(q, ('10.96.0.10', 53))
    a = s.recv(999)
    return 'code=%d answers=%d' % (a[3] & 15, a[7])
return ' | '.join([name('kubernetes'), name('db-0.db'), name('db'), name('alias'), name('nosuch'),
    socket.gethostbyaddr('10.96.0.1')[0], ask('_sql._tcp.db.default.svc.cluster.local', 33),
    ask('nosuch.default.svc.cluster.local', 1), ask('example.com', 1)])";
    python(&lab, "look", "node-1", &again(look));
    // A name outside is SERVFAIL, for there is no way out; so a search that ends there is "try again".
    let expected = format!(
        "ok 10.96.0.1 | {pod} | {pod} | 10.96.0.1 | [Errno -3] Temporary failure in name resolution | \
         kubernetes.default.svc.cluster.local | code=0 answers=1 | code=3 answers=0 | code=2 answers=0"
    );
    says(&lab, "look", &expected);
    let ready = lab.object(&["-n", "kube-system", "deployment", "coredns"]);
    assert_eq!(ready["status"]["readyReplicas"], 1, "{ready}");
}

#[test]
fn a_network_policy_keeps_strangers_out_and_hand_made_endpoints_are_served() {
    let lab = Lab::up();
    let serve = "import http.server; http.server.HTTPServer(('', 8080), http.server.SimpleHTTPRequestHandler).serve_forever()";
    python(&lab, "server", "node-2", serve);
    let target = lab.object(&["pod", "server"])["status"]["podIP"].as_str().unwrap().to_owned();
    lab.apply(&format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: manual}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: manual}}
subsets: [{{addresses: [{{ip: {target}}}], ports: [{{port: 8080}}]}}]
"
    ));
    let vip = lab.object(&["service", "manual"])["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let ask = again(&format!("return u.urlopen('http://{vip}/', timeout=1).status"));
    labelled(&lab, "friend", "node-1", &ask, serde_json::json!({"role": "friend"}));
    labelled(&lab, "stranger", "node-2", &ask, serde_json::json!({"role": "stranger"}));
    says(&lab, "friend", "ok 200");
    says(&lab, "stranger", "ok 200");
    lab.kubectl(&[
        "-n",
        "kube-system",
        "rollout",
        "status",
        "daemonset/kube-network-policies",
        "--timeout=30s",
    ])
    .ok();
    lab.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {role: friend}}}]
    ports: [{port: 8080}]
",
    );
    let table = lab.kubectl(&["get", "netpol"]).ok();
    assert!(table.contains("POD-SELECTOR") && table.contains("app=server"), "{table}");
    says(&lab, "stranger", "failed");
    says(&lab, "friend", "ok 200");
    lab.kubectl(&["delete", "netpol", "friends"]).ok();
    let since = Instant::now();
    says(&lab, "stranger", "ok 200");
    assert!(since.elapsed() < Duration::from_secs(10));
}
