//! What is measured and never stored.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::super::{Resource, strategies};
use super::row;
use crate::control::apiserver::metrics_api::{GROUP, NodeMetrics, PodMetrics};

const READ: &[&str] = &["get", "list"];

/// Nobody writes one; it is read as it is.
fn as_it_is(object: &Value) -> Result<Value, String> {
    match object["apiVersion"].as_str() {
        Some("metrics.k8s.io/v1beta1") => Ok(object.clone()),
        other => Err(format!("apiVersion {other:?} is not of this group")),
    }
}

fn measured<T: schemars::JsonSchema>(
    kind: &'static str,
    list_kind: &'static str,
    plural: &'static str,
) -> Resource {
    Resource {
        group: GROUP,
        version: "v1beta1",
        kind,
        verbs: READ,
        decode: as_it_is,
        strategy: strategies::of(GROUP, plural),
        schema: schemars::SchemaGenerator::subschema_for::<T>,
        bucket: format!("/registry/{GROUP}/{plural}/"),
        // The client's library has no types of this group; the rest is as in any row.
        ..row::<Pod>(plural, "", list_kind)
    }
}

pub fn rows() -> Vec<Resource> {
    vec![
        measured::<NodeMetrics>("NodeMetrics", "NodeMetricsList", "nodes").cluster(),
        measured::<PodMetrics>("PodMetrics", "PodMetricsList", "pods"),
    ]
}
