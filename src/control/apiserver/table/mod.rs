//! Server-side tables: what `kubectl get` prints, columns and cells (`meta.k8s.io/v1` Table).
//!
//! Stands for `k8s.io/kubernetes/pkg/printers/internalversion`; each kind's columns and row function are
//! part of its strategy.

pub mod autoscaling;
pub mod batch;
pub mod cells;
pub mod cluster;
pub mod flow;
pub mod ingress;
pub mod network;
pub mod plain;
pub mod pod;
pub mod storage;
pub mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::registry::{Column, Resource};

/// What a row carries beside its cells (`?includeObject=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    /// The default: what `-l` columns and `-A` need.
    Metadata,
    Object,
}

/// A table of objects; `list` is the list's metadata.
pub fn of(row: &Resource, objects: &[Value], list: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let columns = row.columns();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut out = json!({"cells": row.cells(object, now)});
            if row.kind == "Pod"
                && let Some(conditions) = pod::conditions(object)
            {
                out["conditions"] = conditions;
            }
            match include {
                IncludeObject::None => {}
                IncludeObject::Metadata => {
                    out["object"] = json!({
                        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                        "metadata": object["metadata"],
                    });
                }
                IncludeObject::Object => out["object"] = object.clone(),
            }
            out
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list,
        "columnDefinitions": columns, "rows": rows,
    })
}

pub fn definition(column: &Column) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format,
        "description": column.description, "priority": column.priority,
    })
}

#[cfg(test)]
mod tests;
