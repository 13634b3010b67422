//! What goes between a client and a running pod: exec, logs and port-forward, through API server and kubelet.
//!
//! Each figure stands beside the same bytes over a plain TLS connection between two tasks of this process.
//! The peer runs on the same two cores and pays for its own TLS and framing.

mod exec;
mod floor;
mod forward;
mod upgrade;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use serde_json::json;

use super::api::client::Client;
use super::figures::{Report, median, median_of, ms};
use super::lab::Lab;

const PODS: &str = "/api/v1/namespaces/default/pods";
/// One transfer.
const SIZE: usize = 256 << 20;
const LOG: usize = 100 << 20;

/// Answers `bytes` with as many as asked for, anything else with one short HTTP answer a request.
const SERVER: &str = r#"
import socket, threading
block = b"x" * (1 << 20)
def serve(peer):
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        said = peer.recv(65536)
        if not said: return
        if said.startswith(b"bytes "):
            left = int(said.split()[1])
            while left > 0:
                left -= len(block[:left])
                peer.sendall(block if left >= 0 else block[:left])
            return peer.close()
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("", 8080))
server.listen(256)
print("serving", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"#;

pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rounds = rounds.max(10);
    runtime.block_on(async {
        let client = Client::connect(lab).await?;
        keep_long_logs(lab)?;
        run(&client, "streams", &["python3", "-c", SERVER]).await?;
        let line = "x".repeat(99);
        let write = format!("yes {line} | head -c {LOG}; sleep infinity");
        run(&client, "long-log", &["sh", "-c", &write]).await?;
        let mut floors = Vec::new();
        for _ in 0..rounds {
            floors.push(per_second(SIZE, floor::transfer(SIZE).await?));
        }
        let floor = format!("{:.0} MB/s (plain TLS)", median_of(&mut floors));
        logs(&client, rounds, &floor, report).await?;
        let mut rates = Vec::new();
        for _ in 0..rounds {
            rates.push(per_second(SIZE, exec::stdin(lab, SIZE).await?));
        }
        report.row("exec stdin", rate(&mut rates), floor.clone(), "300 MB/s");
        let mut rates = Vec::new();
        for _ in 0..rounds {
            rates.push(per_second(SIZE, exec::stdout(lab, SIZE).await?));
        }
        report.row("exec stdout", rate(&mut rates), floor.clone(), "300 MB/s");
        let session = forward::Forward::connect(lab).await?;
        let mut rates = Vec::new();
        for _ in 0..rounds {
            rates.push(per_second(SIZE, session.download(SIZE).await?));
        }
        report.row("port-forward, one stream", rate(&mut rates), floor.clone(), "400 MB/s");
        let (answers, serial) = session.requests(rounds).await?;
        let (bare, bare_serial) = floor::requests(rounds).await?;
        let figure = format!("{answers:.0}/s, one after another {}", ms(serial));
        let floor = format!("{bare:.0}/s, {} (plain TLS)", ms(bare_serial));
        report.row("port-forward, small requests", figure, floor, "–");
        anyhow::Ok(())
    })?;
    round_trip(lab, rounds, report)
}

/// A log of 100 MB would be rotated away at 10 MiB.
fn keep_long_logs(lab: &Lab) -> anyhow::Result<()> {
    let script = "echo 'containerLogMaxSize: 1Gi' >> /var/lib/kubelet/config.yaml";
    for node in ["node-1", "node-2"] {
        lab.minilab(&["exec", node, "--", "sh", "-c", script])?;
        lab.minilab(&["restart", &format!("kubelet@{node}")])?;
    }
    Ok(())
}

/// Starts a pod and waits until it runs.
async fn run(client: &Client, name: &str, command: &[&str]) -> anyhow::Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "minilab/toolbox", "command": command}]},
    });
    let mut watch = client.watch(&format!("{PODS}?watch=1&fieldSelector=metadata.name%3D{name}")).await?;
    client.send(Method::POST, PODS, Some(&pod)).await?;
    while watch.next().await?["object"]["status"]["phase"] != "Running" {}
    Ok(())
}

/// The log as the API gives it, and how fast kubectl takes it.
async fn logs(client: &Client, rounds: usize, floor: &str, report: &mut Report) -> anyhow::Result<()> {
    let path = format!("{PODS}/long-log/log");
    let until = Instant::now() + Duration::from_secs(60);
    while client.fetch(&path, false).await? < LOG {
        if Instant::now() > until {
            bail!("the log did not grow to {LOG} bytes");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let from = Instant::now();
        let size = client.fetch(&path, false).await?;
        rates.push(per_second(size, from.elapsed()));
    }
    report.row("logs of 100 MB", rate(&mut rates), floor.to_owned(), "200 MB/s");
    Ok(())
}

/// `kubectl exec -- true` beside `kubectl version`, which is one request and kubectl's own start.
fn round_trip(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut printed = 0;
    let mut time = |arguments: &[&str]| -> anyhow::Result<Duration> {
        let from = Instant::now();
        let output =
            Command::new("kubectl").arg("--kubeconfig").arg(lab.kubeconfig_path()).args(arguments).output();
        let output = output.context("run kubectl")?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        printed = output.stdout.len();
        Ok(from.elapsed())
    };
    let (mut execs, mut starts, mut logs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds * 2 {
        starts.push(time(&["version"])?);
        execs.push(time(&["exec", "streams", "--", "true"])?);
    }
    for _ in 0..rounds {
        logs.push(time(&["logs", "long-log"])?);
    }
    let (exec, start) = (median(&mut execs), median(&mut starts));
    let above = exec.saturating_sub(start);
    let floor = format!("{} (kubectl version)", ms(start));
    report.row("kubectl exec -- true", format!("{}, {} above", ms(exec), ms(above)), floor, "15 ms above");
    let figure = format!("{:.0} MB/s", per_second(printed, median(&mut logs)));
    report.row("kubectl logs of 100 MB", figure, "kubectl itself".into(), "–");
    Ok(())
}

fn per_second(size: usize, took: Duration) -> f64 {
    size as f64 / 1e6 / took.as_secs_f64()
}

fn rate(rates: &mut [f64]) -> String {
    format!("{:.0} MB/s", median_of(rates))
}
