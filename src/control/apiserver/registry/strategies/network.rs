//! Services, Endpoints, EndpointSlices.

use serde_json::{Value, json};

use super::super::Strategy;
use super::edit::{self, copy, default, default_zero, items, map, set};
use super::{PLAIN, selectable};
use crate::control::apiserver::table::network as table;
use crate::control::apiserver::validation::network as validation;

pub static SERVICE: Strategy = Strategy {
    default: |object| {
        if let Some(spec) = map(object, "spec") {
            service(spec);
        }
    },
    validate: validation::service,
    prepare_create: |object| set(object, "status", json!({"loadBalancer": {}})),
    // What was allocated is carried over where addresses are handed out.
    prepare_update: |object, old| copy(object, old, "status"),
    fields: |object, path| selectable(object, path, &["spec.clusterIP", "spec.type"]),
    columns: table::SERVICE,
    row: table::service,
};

fn service(spec: &mut Value) {
    default(spec, "sessionAffinity", "None");
    default(spec, "type", "ClusterIP");
    if spec["sessionAffinity"] == "ClientIP" {
        let config = map(spec, "sessionAffinityConfig").and_then(|config| map(config, "clientIP"));
        if let Some(config) = config {
            default(config, "timeoutSeconds", 10_800);
        }
    }
    for port in items(spec, "ports") {
        default(port, "protocol", "TCP");
        let own = port["port"].clone();
        default_zero(port, "targetPort", own);
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let has_external = spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && has_external) {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

pub static ENDPOINTS: Strategy = Strategy {
    default: |object| {
        for subset in items(object, "subsets") {
            for port in items(subset, "ports") {
                default(port, "protocol", "TCP");
            }
        }
    },
    validate: validation::endpoints,
    columns: table::ENDPOINTS,
    row: table::endpoints,
    ..PLAIN
};

pub static ENDPOINT_SLICE: Strategy = Strategy {
    default: |object| {
        for port in items(object, "ports") {
            if port["name"].is_null() {
                set(port, "name", json!(""));
            }
            default(port, "protocol", "TCP");
        }
    },
    validate: validation::endpoint_slice,
    prepare_create: |object| edit::set_generation(object, 1),
    prepare_update: |object, old| {
        let changed = ["endpoints", "ports"].iter().any(|field| object[field] != old[field])
            || object["metadata"]["labels"] != old["metadata"]["labels"];
        edit::count_changes(object, old, changed);
    },
    columns: table::ENDPOINT_SLICE,
    row: table::endpoint_slice,
    ..PLAIN
};
