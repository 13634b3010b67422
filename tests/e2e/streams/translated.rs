//! A kubelet that reads no WebSockets beside one that does: the API server translates for the first and
//! passes on to the second, users see no difference while all is well, and each its own words when not.

use std::time::Duration;

use super::forward::Forward;
use super::{Wire, good, kubectl, noise, text, with_input};
use crate::kit::{Lab, clients, eventually};
use crate::kubelet::reconfigure;

/// Node-1's kubelet as those before the feature were.
fn lab() -> Lab {
    let lab = Lab::up();
    reconfigure(&lab, "node-1", |config| config + "featureGates: {ExtendWebSocketsToKubelet: false}\n");
    eventually(Duration::from_secs(60), "the nodes say what their kubelets can do", || {
        let of = |node: &str| lab.object(&["node", node])["status"]["declaredFeatures"].to_string();
        let declared = ["node-1", "node-2"].map(|node| of(node).contains("ExtendWebSocketsToKubelet"));
        if declared == [false, true] { Ok(()) } else { Err(format!("{declared:?}")) }
    });
    for node in ["node-1", "node-2"] {
        lab.run_on(
            node,
            &format!("on-{node}"),
            "cd /tmp; echo a page > page; exec python3 -m http.server 8080",
        );
    }
    lab
}

/// What the API server has counted of a kind; nothing is 0.
fn counted(lab: &Lab, sample: &str) -> u64 {
    let metrics = lab.kubectl(&["get", "--raw", "/metrics"]).ok();
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
    line.map_or(0, |rest| rest.trim().parse().unwrap())
}

fn routed(lab: &Lab, subresource: &str, how: &str) -> u64 {
    let name = "apiserver_websocket_streaming_requests_total";
    counted(lab, &format!("{name}{{proxy_type=\"{how}\",subresource=\"{subresource}\"}}"))
}

#[test]
fn a_kubelet_without_websockets_serves_every_client_through_the_translator() {
    let lab = lab();
    let sent = noise(5 << 20);
    for version in clients::both() {
        for (node, how) in [("node-1", "translated_at_apiserver"), ("node-2", "proxied_to_kubelet")] {
            eprintln!("kubectl {} to {node}", version.version);
            let pod = format!("on-{node}");
            let before = ["exec", "attach", "portforward"].map(|what| routed(&lab, what, how));
            let exec = |words: &[&str]| {
                let mut command = kubectl(&lab, version, Wire::WebSocket);
                command.args(["exec", "-i", &pod, "--"]).args(words);
                command
            };
            let seven = with_input(exec(&["sh", "-c", "echo out; echo err >&2; exit 7"]), b"");
            assert_eq!(seven.status.code(), Some(7), "{}", text(&seven.stderr));
            assert_eq!(text(&seven.stdout), "out\n");
            assert_eq!(text(&seven.stderr), "err\ncommand terminated with exit code 7\n");
            let back = with_input(exec(&["cat"]), &sent);
            assert!(back.status.success() && back.stdout == sent, "{}", back.stdout.len());
            let mut attach = kubectl(&lab, version, Wire::WebSocket);
            attach.args(["attach", &pod, "--pod-running-timeout=5s"]);
            attached(&lab, attach, &pod);
            let forward =
                Forward::start(kubectl(&lab, version, Wire::WebSocket), &format!("pod/{pod}"), 8080);
            eventually(Duration::from_secs(30), "a page", || match forward.get("/page") {
                Ok(page) if text(&page) == "a page\n" => Ok(()),
                other => Err(format!("{other:?}")),
            });
            let after = ["exec", "attach", "portforward"].map(|what| routed(&lab, what, how));
            assert!(
                after.iter().zip(before).all(|(after, before)| *after > before),
                "{node}: {how} {before:?} {after:?}"
            );
        }
    }
    assert!(counted(&lab, "apiserver_stream_translator_requests_total{code=\"200\"}") > 0);
    assert!(counted(&lab, "apiserver_stream_tunnel_requests_total{code=\"101\"}") > 0);
}

/// Attaches to a server that logs its requests until one was heard.
fn attached(lab: &Lab, mut attach: std::process::Command, pod: &str) {
    use std::io::Read;
    let mut child =
        attach.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // The server says on its standard error whom it served.
    let mut said = child.stderr.take().unwrap();
    let heard = std::thread::spawn(move || {
        let (mut all, mut piece) = (String::new(), [0; 1024]);
        while !all.contains("GET /page") {
            match said.read(&mut piece) {
                Ok(size @ 1..) => all += &text(&piece[..size]),
                _ => break,
            }
        }
        all
    });
    let ask = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/page').read()";
    eventually(Duration::from_secs(60), "the attached client hears", || {
        good(
            &kubectl(lab, clients::any(), Wire::WebSocket)
                .args(["exec", pod, "--", "python3", "-c", ask])
                .output()
                .unwrap(),
        );
        if heard.is_finished() { Ok(()) } else { Err("nothing yet".into()) }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let all = heard.join().unwrap();
    assert!(all.contains("GET /page"), "{all}");
}
