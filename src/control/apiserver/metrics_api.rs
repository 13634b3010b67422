//! `metrics.k8s.io`: how much cpu and memory nodes and pods use now, for `kubectl top` and autoscalers.
//!
//! Stands for metrics-server, which on a real cluster is an aggregated API server in a pod of its own and
//! polls; here kubelets are asked when somebody asks. Nothing of it is stored.

use std::collections::BTreeMap;

use axum::response::Response;
use futures_util::future::join_all;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::call::Call;
use super::registry::{self, Resource};
use super::{encode, respond};
use crate::api::selector::LabelSelector;
use crate::api::status::{Result, Status};

pub const GROUP: &str = "metrics.k8s.io";
/// Over how long kubelets measure.
const WINDOW: &str = "10s";

/// What a node uses.
#[derive(schemars::JsonSchema)]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics")]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its description is used: the answers are written as JSON")]
pub struct NodeMetrics {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: ObjectMeta,
    timestamp: Time,
    window: String,
    usage: BTreeMap<String, Quantity>,
}

/// What a pod's containers use.
#[derive(schemars::JsonSchema)]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics")]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only its description is used: the answers are written as JSON")]
pub struct PodMetrics {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: ObjectMeta,
    timestamp: Time,
    window: String,
    containers: Vec<ContainerMetrics>,
}

#[derive(schemars::JsonSchema)]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics")]
#[expect(dead_code, reason = "only its description is used: the answers are written as JSON")]
struct ContainerMetrics {
    name: String,
    usage: BTreeMap<String, Quantity>,
}

pub async fn answer(call: &Call, row: &Resource) -> Result<Response> {
    let asked = call.asked();
    let wanted = match call.query.text("labelSelector") {
        Some(text) => {
            Some(LabelSelector::parse(text).map_err(|error| Status::bad_request(error.to_string()))?)
        }
        None => None,
    };
    let mut objects = stored(call, row)?;
    objects.retain(|object| {
        wanted.as_ref().is_none_or(|wanted| wanted.matches(&object["metadata"]["labels"]))
            && (asked.name.is_empty() || object["metadata"]["name"] == asked.name.as_str())
    });
    let items =
        if row.kind == "NodeMetrics" { nodes(call, &objects).await } else { pods(call, &objects).await };
    if call.info.verb == "list" {
        let list =
            json!({"kind": row.list_kind, "apiVersion": row.api_version(), "metadata": {}, "items": items});
        return Ok(respond::value(StatusCode::OK, &list));
    }
    match items.into_iter().next() {
        Some(one) => Ok(respond::value(StatusCode::OK, &one)),
        None => Err(Status::not_found(GROUP, row.plural, &asked.name)),
    }
}

/// The nodes or pods themselves.
fn stored(call: &Call, row: &Resource) -> Result<Vec<Value>> {
    let real = registry::by_name("", row.plural).ok_or_else(Status::no_such_path)?;
    let namespace = &call.asked().namespace;
    let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    let page = call.api.store.list(&real.bucket, &prefix, None, None, None).map_err(Status::internal)?;
    Ok(page.entries.iter().filter_map(|entry| encode::object(entry).ok()).collect())
}

async fn nodes(call: &Call, objects: &[Value]) -> Vec<Value> {
    let one = |node: &Value| {
        let (name, metadata) = (text(&node["metadata"]["name"]), head(node));
        async move {
            let summary = call.api.kubelets.summary(&name).await?;
            let used = usage(&summary["node"])?;
            Some(json!({
                "kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata,
                "timestamp": summary["node"]["cpu"]["time"], "window": WINDOW, "usage": used,
            }))
        }
    };
    join_all(objects.iter().map(one)).await.into_iter().flatten().collect()
}

async fn pods(call: &Call, objects: &[Value]) -> Vec<Value> {
    let mut hosts: Vec<String> = objects.iter().map(|pod| text(&pod["spec"]["nodeName"])).collect();
    hosts.retain(|node| !node.is_empty());
    hosts.sort_unstable();
    hosts.dedup();
    let summaries = join_all(hosts.iter().map(|node| call.api.kubelets.summary(node))).await;
    let measured: Vec<&Value> = summaries
        .iter()
        .flatten()
        .flat_map(|summary| summary["pods"].as_array().into_iter().flatten())
        .collect();
    objects.iter().filter_map(|pod| of_pod(pod, &measured)).collect()
}

/// A pod's metrics, if it runs and its node measured every container of it.
fn of_pod(pod: &Value, measured: &[&Value]) -> Option<Value> {
    let uid = &pod["metadata"]["uid"];
    let own =
        measured.iter().find(|one| one["podRef"]["uid"] == *uid && pod["status"]["phase"] == "Running")?;
    let containers: Vec<Value> = own["containers"]
        .as_array()?
        .iter()
        .filter_map(|one| Some(json!({"name": one["name"], "usage": usage(one)?})))
        .collect();
    (!containers.is_empty()).then(|| {
        json!({
            "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": head(pod),
            "timestamp": own["cpu"]["time"], "window": WINDOW, "containers": containers,
        })
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn head(object: &Value) -> Value {
    let own = &object["metadata"];
    let mut head = json!({"name": own["name"], "creationTimestamp": super::handlers::meta::now()});
    for field in ["namespace", "labels"] {
        if !own[field].is_null() {
            head[field] = own[field].clone();
        }
    }
    head
}

/// Nanocores and kibibytes, as metrics-server writes them.
fn usage(measured: &Value) -> Option<Value> {
    let cores = measured["cpu"]["usageNanoCores"].as_u64()?;
    let bytes = measured["memory"]["workingSetBytes"].as_u64()?;
    let cpu = if cores == 0 { "0".to_owned() } else { format!("{cores}n") };
    Some(json!({"cpu": cpu, "memory": format!("{}Ki", bytes / 1024)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_pod_has_the_usage_its_node_measured() {
        let pod =
            json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "status": {"phase": "Running"}});
        let measured = json!({"podRef": {"uid": "u"}, "cpu": {"time": "t"}, "containers": [
            {"name": "c", "cpu": {"usageNanoCores": 5}, "memory": {"workingSetBytes": 4096}}]});
        let metrics = of_pod(&pod, &[&measured]).unwrap();
        assert_eq!(metrics["containers"], json!([{"name": "c", "usage": {"cpu": "5n", "memory": "4Ki"}}]));
        let other = json!({"metadata": {"name": "b", "uid": "v"}, "status": {"phase": "Running"}});
        assert!(of_pod(&other, &[&measured]).is_none());
    }
}
