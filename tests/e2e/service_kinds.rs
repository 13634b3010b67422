//! Services of every kind: what they are given, whom they let in, and what the API server says of itself.

use std::time::Duration;

use serde_json::json;

use crate::kit::{Lab, eventually};

const SOON: Duration = Duration::from_secs(60);

/// A pod that answers on two ports of any node it is put on.
fn server(lab: &Lab, name: &str, node: &str) {
    let serve = "
import http.server, threading
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'here')
    def log_message(self, *a): pass
threading.Thread(target=http.server.ThreadingHTTPServer(('', 8081), H).serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(('', 8080), H).serve_forever()
";
    lab.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "c", "image": "minilab/toolbox", "command": ["python3", "-c", serve],
                "ports": [{"name": "web", "containerPort": 8080}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}]},
        })
        .to_string(),
    );
    lab.wait_ready(name);
}

/// What a GET from a host or a pod comes to: the status and the body, or why there is none.
fn get(lab: &Lab, from: &[&str], url: &str) -> String {
    let program = format!(
        "
import urllib.request, urllib.error
try:
    r = urllib.request.urlopen('{url}', timeout=3); print(r.status, r.read().decode())
except urllib.error.HTTPError as e: print(e.code, e.read().decode())
except Exception as e: print('failed', e)
"
    );
    let python = ["--", "python3", "-c", &program];
    match from {
        ["pod", pod] => lab.kubectl(&[&["exec", pod], &python[..]].concat()).stdout,
        host => lab.minilab(&[&["exec", host[0]], &python[..]].concat()).stdout,
    }
}

fn comes_to(lab: &Lab, from: &[&str], url: &str, want: &str) {
    eventually(SOON, &format!("{url} from {from:?} is {want:?}"), || match get(lab, from, url) {
        answer if answer.contains(want) => Ok(()),
        answer => Err(answer),
    });
}

#[test]
fn a_load_balancer_is_told_where_the_pods_are_and_lets_in_whom_it_should() {
    let lab = Lab::up();
    server(&lab, "web", "node-1");
    lab.run("client", "sleep 1000");
    lab.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  externalIPs: [203.0.113.77]
  selector: {app: web}
  ports: [{port: 80, targetPort: web}]
",
    );
    let row = lab.kubectl(&["get", "service", "web"]).ok();
    assert!(row.contains("203.0.113.77"), "{row}");
    let spec = lab.object(&["service", "web"])["spec"].clone();
    let health = spec["healthCheckNodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&health) && spec["ports"][0]["nodePort"] != spec["healthCheckNodePort"]);
    let url = |node: &str| format!("http://{node}:{health}/");
    comes_to(&lab, &["control"], &url("192.0.2.11"), "200 {");
    comes_to(&lab, &["control"], &url("192.0.2.11"), "\"localEndpoints\": 1");
    comes_to(&lab, &["control"], &url("192.0.2.12"), "503 {");
    comes_to(&lab, &["pod", "client"], "http://203.0.113.77/", "200 here");

    // Somebody plays the balancer; its address is served on the nodes.
    let ingress = |ip: &str| json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}).to_string();
    let report = |ip: &str| {
        lab.kubectl(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", &ingress(ip)])
    };
    let wrong = report("foo").fails_with(1);
    assert!(wrong.contains("status.loadBalancer.ingress[0].ip: Invalid value: \"foo\""), "{wrong}");
    report("203.0.113.50").ok();
    comes_to(&lab, &["pod", "client"], "http://203.0.113.50/", "200 here");
    let only = |range: &str| {
        let patch = json!({"spec": {"loadBalancerSourceRanges": [range]}}).to_string();
        lab.kubectl(&["patch", "service", "web", "-p", &patch]).ok();
    };
    only("198.51.100.0/24");
    comes_to(&lab, &["pod", "client"], "http://203.0.113.50/", "failed");
    comes_to(&lab, &["pod", "client"], "http://203.0.113.77/", "200 here");
    only("10.244.0.0/16");
    comes_to(&lab, &["pod", "client"], "http://203.0.113.50/", "200 here");

    lab.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"externalTrafficPolicy":"Cluster"}}"#]).ok();
    assert!(lab.object(&["service", "web"])["spec"]["healthCheckNodePort"].is_null());
    comes_to(&lab, &["control"], &url("192.0.2.11"), "refused");
}

#[test]
fn a_service_is_refused_what_this_cluster_does_not_have() {
    let lab = Lab::up();
    let refused = |spec: serde_json::Value, want: &str| {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec});
        let file = lab.home.path().join("service.json");
        std::fs::write(&file, service.to_string()).unwrap();
        let said = lab.kubectl(&["create", "-f", file.to_str().unwrap()]).fails_with(1);
        assert!(said.contains(want), "{spec}: {said}");
    };
    let ports = json!([{"port": 80}]);
    refused(
        json!({"ports": ports, "ipFamilies": ["IPv6"]}),
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
    );
    refused(
        json!({"ports": ports, "ipFamilyPolicy": "RequireDualStack"}),
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
    );
    refused(
        json!({"ports": ports, "clusterIP": "1.2.3.4"}),
        "failed to allocate IP 1.2.3.4: the provided network does not match the current range",
    );
    refused(
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80, "nodePort": 80}]}),
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
    );
    refused(
        json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.7.7"}),
        "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
    );
    refused(
        json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30080}]}),
        "spec.ports[1].nodePort: Duplicate value: 30080",
    );
    lab.kubectl(&["create", "service", "nodeport", "ok", "--tcp=80:80", "--node-port=30080"]).ok();
    refused(
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
        "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
    );
    lab.kubectl(&[
        "patch",
        "service",
        "ok",
        "-p",
        r#"{"spec":{"type":"ExternalName","externalName":"a.b"}}"#,
    ])
    .ok();
    let named = lab.object(&["service", "ok"])["spec"].clone();
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert!(named[field].is_null(), "{field} goes with the type: {named}");
    }
}

#[test]
fn the_kubernetes_service_is_kept_and_its_endpoints_outlive_the_api_server() {
    let lab = Lab::up();
    let addresses = || {
        let slice = lab.object(&["endpointslice", "kubernetes"]);
        slice["endpoints"][0]["addresses"][0].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(addresses(), "198.51.100.2");
    let service = lab.object(&["service", "kubernetes"])["spec"].clone();
    assert_eq!((service["clusterIP"].as_str(), service["selector"].is_null()), (Some("10.96.0.1"), true));
    let lie = r#"[{"op":"replace","path":"/subsets/0/addresses/0/ip","value":"203.0.113.1"}]"#;
    lab.kubectl(&["patch", "endpoints", "kubernetes", "--type=json", "-p", lie]).ok();
    lab.kubectl(&["delete", "endpointslice", "kubernetes"]).ok();
    eventually(SOON, "both are mended", || {
        let ran = lab.kubectl(&["get", "endpointslice,endpoints", "kubernetes"]);
        let good = ran.stdout.matches("198.51.100.2").count() == 2;
        if good { Ok(()) } else { Err(ran.stdout + &ran.stderr) }
    });
    // The only server stops in good order: its lease goes, the endpoints stay.
    lab.minilab(&["restart", "kube-apiserver"]).ok();
    assert_eq!(addresses(), "198.51.100.2");
}

#[test]
fn a_port_of_a_service_is_forwarded_and_policies_choose_by_every_kind_of_peer() {
    let lab = Lab::up();
    server(&lab, "web", "node-2");
    lab.kubectl(&["expose", "pod", "web", "--port=80", "--target-port=web"]).ok();
    let mut forward = lab
        .kubectl_command(crate::kit::clients::any())
        .args(["port-forward", "svc/web", ":80"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // kubectl says there that a connection came; who does not listen ends it.
    let mut said = std::io::BufReader::new(forward.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut said, &mut first).unwrap();
    let address = first.split(' ').nth(2).unwrap().to_owned();
    let mut stream =
        std::net::TcpStream::connect(&address).unwrap_or_else(|error| panic!("{first}: {error}"));
    stream.set_read_timeout(Some(SOON)).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.ends_with("here"), "{answer}");
    forward.kill().unwrap();
    forward.wait().unwrap();

    lab.kubectl(&["create", "namespace", "other"]).ok();
    eventually(SOON, "the namespace has its account", || {
        match lab.kubectl(&["-n", "other", "get", "serviceaccount", "default"]) {
            ran if ran.code == 0 => Ok(()),
            ran => Err(ran.stderr),
        }
    });
    let client = |namespace: &str| {
        lab.apply(
            &json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "client", "namespace": namespace, "labels": {"role": "client"}},
                "spec": {"nodeName": "node-1", "terminationGracePeriodSeconds": 0, "containers": [
                    {"name": "c", "image": "minilab/toolbox", "command": ["sleep", "infinity"]}]}})
            .to_string(),
        );
        lab.kubectl(&["-n", namespace, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).ok();
    };
    client("default");
    client("other");
    lab.kubectl(&[
        "-n",
        "kube-system",
        "rollout",
        "status",
        "daemonset/kube-network-policies",
        "--timeout=60s",
    ])
    .ok();
    let target = lab.object(&["pod", "web"])["status"]["podIP"].as_str().unwrap().to_owned();
    let open = |namespace: &str, port: u16| {
        let dial = format!(
            "import socket; socket.create_connection(('{target}', {port}), timeout=2); print('open')"
        );
        lab.kubectl(&["-n", namespace, "exec", "client", "--", "python3", "-c", &dial])
            .stdout
            .contains("open")
    };
    // Which of (default:8080, default:8081, other:8080) get through.
    let through = |what: &str, want: [bool; 3]| {
        eventually(SOON, what, || {
            let now = [open("default", 8080), open("default", 8081), open("other", 8080)];
            if now == want { Ok(()) } else { Err(format!("{now:?}")) }
        });
    };
    through("nothing is in the way", [true; 3]);
    let own = lab.object(&["pod", "client"])["status"]["podIP"].as_str().unwrap().to_owned();
    let ingress = |rule: serde_json::Value| {
        lab.apply(
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
                "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]}})
            .to_string(),
        );
    };
    let other = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}});
    ingress(json!({"from": [other]}));
    through("by namespace", [false, false, true]);
    ingress(json!({"from": [{"podSelector": {}}], "ports": [{"port": "web"}]}));
    through("by pod and a port's name", [true, false, false]);
    ingress(json!({"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": [format!("{own}/32")]}}]}));
    through("by range and exception", [false, false, true]);
    ingress(json!({"ports": [{"port": 8081, "endPort": 8090}]}));
    through("by a range of ports", [false, true, false]);
    lab.kubectl(&["delete", "netpol", "p"]).ok();
    lab.apply(
        &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "out"},
            "spec": {"podSelector": {"matchLabels": {"role": "client"}}, "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 8081}]}]}})
        .to_string(),
    );
    through("on the way out", [false, true, true]);
}
