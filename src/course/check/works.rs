//! What kubectl does through a kubelet must go on working: logs, exec and port-forward, on every node, with a
//! pod that is new and a word nobody could have guessed.

use std::process::Stdio;
use std::time::Duration;

use ring::rand::SecureRandom;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::Seen;
use crate::course::ground::{Ground, ONE_TRY, kubectl, short};
use crate::course::schema::Stream;
use crate::lab::state::LabDir;
use crate::net::{Dial, Direct};

/// On the pods of this check.
const LABEL: &str = "minilab.dev/check";
/// How long the cluster may take to settle after a repair.
const PATIENCE: Duration = Duration::from_secs(15);

/// All three of them.
pub fn all(ground: &Ground<'_>) -> Seen {
    these(ground, &[Stream::Logs, Stream::Exec, Stream::PortForward])
}

/// Some of them, on every node.
pub fn these(ground: &Ground<'_>, streams: &[Stream]) -> Seen {
    let seen = tried(ground, streams).unwrap_or_else(|error| Seen::new(false, error));
    let _ = ground.delete(&format!("/api/v1/namespaces/default/pods?labelSelector={LABEL}"));
    seen
}

fn tried(ground: &Ground<'_>, streams: &[Stream]) -> Result<Seen, String> {
    let mut bytes = [0; 6];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| "no random bytes")?;
    let word: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut pods = Vec::new();
    for (node, _) in ground.nodes() {
        let pod = format!("check-{word}-{node}");
        let made = ground.api("POST", "/api/v1/namespaces/default/pods", Some(&body(&pod, &node, &word)))?;
        if made.0 != 200 {
            return Err(format!("a new pod on {node}: {} {}", made.0, short(&made.1)));
        }
        pods.push((node, pod));
    }
    for (node, pod) in &pods {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        let running = |ground: &Ground<'_>| {
            let live = ground.get(&path)?.unwrap_or_default();
            if live["status"]["phase"] == "Running" { Ok(()) } else { Err(live["status"].to_string()) }
        };
        let waited = ground.wait("a new pod", PATIENCE, running);
        waited.map_err(|_| format!("a new pod on {node} does not run"))?;
    }
    let (lab, word) = (ground.lab, &word);
    ground.runtime.block_on(async {
        let tries = pods.iter().flat_map(|(node, pod)| {
            streams.iter().map(move |stream| async move {
                until(|| one(lab, *stream, pod, word))
                    .await
                    .map_err(|why| format!("{} on {node}: {why}", name(*stream)))
            })
        });
        let done = futures_util::future::join_all(tries).await;
        Ok(match done.into_iter().find_map(Result::err) {
            Some(error) => Seen::new(false, error),
            None => Seen::new(true, ""),
        })
    })
}

fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Logs => "kubectl logs",
        Stream::Exec => "kubectl exec",
        Stream::PortForward => "kubectl port-forward",
    }
}

fn body(pod: &str, node: &str, word: &str) -> Value {
    let script = format!("echo {word}; exec attacker page --port 8080 {word}");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod, "labels": {LABEL: ""}},
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false, "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "check", "image": "minilab/toolbox", "command": ["sh", "-c", script]}],
        },
    })
}

/// A cluster that has just been repaired may need a moment; one that refuses by name does not.
async fn until<F: Future<Output = Result<(), String>>>(attempt: impl Fn() -> F) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(6);
    loop {
        match attempt().await {
            Err(error) if tokio::time::Instant::now() < deadline && !error.contains("x509: ") => {
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn one(lab: &LabDir, stream: Stream, pod: &str, word: &str) -> Result<(), String> {
    let said = match stream {
        Stream::Logs => kubectl(lab, &["logs", "-n", "default", pod]).await?.text,
        Stream::Exec => kubectl(lab, &["exec", "-n", "default", pod, "--", "echo", word]).await?.text,
        Stream::PortForward => forwarded(lab, pod).await?,
    };
    // The word alone: a log that says more than the pod wrote is not the pod's.
    let fits = match stream {
        Stream::Logs | Stream::Exec => said.trim() == word,
        Stream::PortForward => said.contains(word),
    };
    if fits { Ok(()) } else { Err(short(&said)) }
}

/// A page of the pod by way of `kubectl port-forward`, whatever it says where there is none.
async fn forwarded(lab: &LabDir, pod: &str) -> Result<String, String> {
    let mut child = tokio::process::Command::new("kubectl")
        .args(["port-forward", "-n", "default", &format!("pod/{pod}"), ":8080", "--address=127.0.0.1"])
        .env("KUBECONFIG", lab.kubeconfig())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let page = tokio::time::timeout(ONE_TRY, async {
        let out = child.stdout.take().ok_or("kubectl has no output")?;
        // Read on as long as it runs: kubectl ends when what it says of a connection is heard by nobody.
        let mut lines = BufReader::new(out).lines();
        let line = lines.next_line().await.map_err(|error| error.to_string())?;
        let port = line
            .as_deref()
            .and_then(|line| line.split("127.0.0.1:").nth(1))
            .and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
        let Some(port) = port else {
            let mut said = String::new();
            let err = child.stderr.take().ok_or("kubectl says nothing")?;
            err.take(4096).read_to_string(&mut said).await.map_err(|error| error.to_string())?;
            return Err(short(&said));
        };
        let page = page(port).await;
        drop(lines);
        page
    });
    page.await.map_err(|_| format!("no page within {ONE_TRY:?}"))?
}

async fn page(port: u16) -> Result<String, String> {
    let mut stream = Direct.dial("127.0.0.1", port).await.map_err(|error| error.to_string())?;
    let ask = b"GET / HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
    stream.write_all(ask).await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    // A forward that breaks in the middle has still said what it said.
    let _ = stream.take(1 << 16).read_to_end(&mut bytes).await;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
