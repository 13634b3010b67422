//! The API server under load: 8 connections with 4 streams each, as the field measures it.
//!
//! The client runs on the same two cores; its own CPU time is reported beside each figure.

pub mod client;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::figures::{Report, median_of, ms, own_cpu, percentile};
use super::lab::Lab;
use client::Client;

const CONNECTIONS: usize = 8;
const STREAMS: usize = 4;
const LOAD: Duration = Duration::from_secs(1);

pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(Client::connect(lab).await?);
        }
        prepare(&clients[0]).await?;
        // Before the loads: their tens of thousands of objects would be measured too.
        watch(&clients, report).await?;
        let floor =
            rate(&clients, rounds, |client, _| async move { client.fetch("/livez", false).await }).await?;
        let config = "/api/v1/namespaces/bench/configmaps/one";
        let get =
            rate(&clients, rounds, move |client, _| async move { client.fetch(config, false).await }).await?;
        report.row(
            "GET one ConfigMap",
            get.text(),
            format!("{:.0}/s (/livez)", floor.per_second),
            "15,000/s",
        );
        let pods = "/api/v1/namespaces/bench/pods";
        let list =
            rate(&clients, rounds, move |client, _| async move { client.fetch(pods, false).await }).await?;
        report.row("LIST 500 pods", list.text(), format!("{:.0} kB each", list.bytes / 1e3), "1,000/s");
        let list =
            rate(&clients, rounds, move |client, _| async move { client.fetch(pods, true).await }).await?;
        report.row("LIST 500 pods, gzip", list.text(), format!("{:.0} kB each", list.bytes / 1e3), "–");
        let create = rate(&clients, rounds, |client, number| async move {
            let object = config_map(&format!("made-{number}"));
            client.send(Method::POST, "/api/v1/namespaces/bench/configmaps", Some(&object)).await.map(|_| 0)
        })
        .await?;
        report.row(
            "CREATE a ConfigMap, durable",
            create.text(),
            format!("{} a flush", ms(fsync()?)),
            "3,000/s",
        );
        Ok(())
    })
}

/// Objects of the sizes the reference figures were taken with.
async fn prepare(client: &Client) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    client.send(Method::POST, "/api/v1/namespaces", Some(&namespace)).await?;
    client.send(Method::POST, "/api/v1/namespaces/bench/configmaps", Some(&config_map("one"))).await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    // The controller may have been faster.
    let _ = client.send(Method::POST, "/api/v1/namespaces/bench/serviceaccounts", Some(&account)).await;
    for number in 0..500 {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{number}"), "labels": {"app": "bench"}},
            // No node has this label, so the pods stay as they are.
            "spec": {"nodeSelector": {"bench": "never"}, "containers": [{"name": "c", "image": "minilab/toolbox"}]},
        });
        client.send(Method::POST, "/api/v1/namespaces/bench/pods", Some(&pod)).await?;
    }
    Ok(())
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "x".repeat(1000)}})
}

struct Rate {
    per_second: f64,
    bytes: f64,
    client_cpu: f64,
}

impl Rate {
    fn text(&self) -> String {
        format!("{:.0}/s (client: {:.0} % of a core)", self.per_second, self.client_cpu * 100.0)
    }
}

/// How often a second all streams together finish `work`; the median of the rounds.
async fn rate<F, W>(clients: &[Client], rounds: usize, work: W) -> anyhow::Result<Rate>
where
    F: Future<Output = anyhow::Result<usize>> + Send + 'static,
    W: Fn(Client, usize) -> F + Clone + Send + Sync + 'static,
{
    let (mut rates, mut bytes, mut cpu) = (Vec::new(), 0.0, Vec::new());
    let number = Arc::new(AtomicUsize::new(0));
    for _ in 0..rounds.max(10) {
        let (from, before) = (Instant::now(), own_cpu());
        let mut streams = tokio::task::JoinSet::new();
        for client in clients {
            for _ in 0..STREAMS {
                let (client, work, number) = (client.clone(), work.clone(), number.clone());
                streams.spawn(async move {
                    let (mut done, mut size) = (0usize, 0);
                    while from.elapsed() < LOAD {
                        size = work(client.clone(), number.fetch_add(1, Ordering::Relaxed)).await?;
                        done += 1;
                    }
                    anyhow::Ok((done, size))
                });
            }
        }
        let mut done = 0;
        while let Some(stream) = streams.join_next().await {
            let (count, size) = stream??;
            done += count;
            bytes = size as f64;
        }
        let took = from.elapsed().as_secs_f64();
        rates.push(done as f64 / took);
        cpu.push((own_cpu() - before).as_secs_f64() / took);
    }
    Ok(Rate { per_second: median_of(&mut rates), bytes, client_cpu: median_of(&mut cpu) })
}

/// What one small durable write costs on this disk.
fn fsync() -> anyhow::Result<Duration> {
    use std::io::Write;
    let mut file = tempfile::tempfile()?;
    let mut samples = Vec::new();
    for _ in 0..50 {
        let from = Instant::now();
        file.write_all(&[0; 2048])?;
        file.sync_data()?;
        samples.push(from.elapsed());
    }
    Ok(percentile(&mut samples, 0.5))
}

/// From a write's POST to its event at a watcher, alone and with 100 watchers.
async fn watch(clients: &[Client], report: &mut Report) -> anyhow::Result<()> {
    for watchers in [1, 100] {
        let path = "/api/v1/namespaces/bench/configmaps?watch=1&resourceVersion=";
        let list = clients[0].send(Method::GET, "/api/v1/namespaces/bench/configmaps?limit=1", None).await?;
        let path = format!("{path}{}", list["metadata"]["resourceVersion"].as_str().unwrap_or_default());
        let mut others = tokio::task::JoinSet::new();
        for at in 1..watchers {
            let mut watch = clients[at % CONNECTIONS].watch(&path).await?;
            others.spawn(async move { while watch.next().await.is_ok() {} });
        }
        let mut watch = clients[1].watch(&path).await?;
        let (mut acknowledged, mut samples) = (Vec::new(), Vec::new());
        for number in 0..300 {
            let object = config_map(&format!("watched-{watchers}-{number}"));
            let from = Instant::now();
            let write = async {
                clients[0].send(Method::POST, "/api/v1/namespaces/bench/configmaps", Some(&object)).await?;
                anyhow::Ok(from.elapsed())
            };
            let see = async {
                watch.next().await?;
                anyhow::Ok(from.elapsed())
            };
            let (written, seen) = tokio::try_join!(write, see)?;
            acknowledged.push(written);
            samples.push(seen);
        }
        let figure =
            format!("p50 {}, p99 {}", ms(percentile(&mut samples, 0.5)), ms(percentile(&mut samples, 0.99)));
        let floor = format!("write acknowledged p50 {}", ms(percentile(&mut acknowledged, 0.5)));
        report.row(&format!("write to watch event, {watchers} watchers"), figure, floor, "p50 0.5 ms");
        others.abort_all();
    }
    Ok(())
}
