//! From a pod's POST to Running, seen by a watch.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use super::api::client::Client;
use super::figures::{Report, median, ms, percentile};
use super::lab::Lab;

pub fn measure(lab: &Lab, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut samples = runtime.block_on(async {
        let client = Client::connect(lab).await?;
        let mut samples = Vec::new();
        for round in 0..rounds.max(10) * 2 {
            samples.push(one(&client, round).await?);
        }
        anyhow::Ok(samples)
    })?;
    let high = percentile(&mut samples, 0.9);
    let figure = format!("{} (p90 {})", ms(median(&mut samples)), ms(high));
    report.row("pod POST to Running", figure, "about 4 ms (namespaces and exec alone)".into(), "50 ms");
    Ok(())
}

async fn one(client: &Client, round: usize) -> anyhow::Result<Duration> {
    let name = format!("bench-{round}");
    let pods = "/api/v1/namespaces/default/pods";
    let mut watch = client.watch(&format!("{pods}?watch=1&fieldSelector=metadata.name%3D{name}")).await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "minilab/toolbox", "command": ["sleep", "infinity"]}]},
    });
    let from = Instant::now();
    client.send(Method::POST, pods, Some(&pod)).await?;
    loop {
        let event = watch.next().await?;
        if event["object"]["status"]["phase"] == "Running" {
            break;
        }
    }
    let took = from.elapsed();
    client.send(Method::DELETE, &format!("{pods}/{name}"), None).await?;
    while watch.next().await?["type"] != "DELETED" {}
    Ok(took)
}
