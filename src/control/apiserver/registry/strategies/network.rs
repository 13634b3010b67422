//! Services, Endpoints, EndpointSlices.

use serde_json::{Value, json};

use super::super::Strategy;
use super::edit::{self, copy, default, default_zero, items, map, set};
use super::{PLAIN, selectable};
use crate::control::apiserver::table::network as table;
use crate::control::apiserver::validation::network as validation;
use crate::control::apiserver::validation::service::{needs_health_check, service as validate_service};

pub static SERVICE: Strategy = Strategy {
    default: |object| {
        if let Some(spec) = map(object, "spec") {
            service(spec);
        }
        balancer_status(object);
    },
    validate: validate_service,
    prepare_create: |object| set(object, "status", json!({"loadBalancer": {}})),
    // What was allocated is carried over where addresses are handed out.
    prepare_update: |object, old| {
        copy(object, old, "status");
        drop_what_the_type_had(object, old);
    },
    fields: |object, path| selectable(object, path, &["spec.clusterIP", "spec.type"]),
    columns: table::SERVICE,
    row: table::service,
};

fn service(spec: &mut Value) {
    default(spec, "sessionAffinity", "None");
    default(spec, "type", "ClusterIP");
    if spec["sessionAffinity"] == "ClientIP" {
        if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
        }
    } else if spec["sessionAffinity"] == "None" {
        edit::remove(spec, "sessionAffinityConfig");
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

/// An address that a balancer reports is served on the nodes themselves, unless it says otherwise.
fn balancer_status(service: &mut Value) {
    if service["spec"]["type"] != "LoadBalancer" {
        return;
    }
    let Some(status) = map(service, "status") else { return };
    let Some(balancer) = map(status, "loadBalancer") else { return };
    for ingress in
        items(balancer, "ingress").filter(|one| one["ip"].as_str().is_some_and(|ip| !ip.is_empty()))
    {
        default(ingress, "ipMode", "VIP");
    }
}

/// A change of type takes along what only the old type had, when the client just sent it back
/// (`dropTypeDependentFields`).
fn drop_what_the_type_had(object: &mut Value, old: &Value) {
    let needs = |service: &Value| match service["spec"]["type"].as_str() {
        Some("NodePort" | "LoadBalancer") => (true, service["spec"]["type"] == "LoadBalancer"),
        _ => (false, false),
    };
    let ((ports_before, balancer_before), (ports_now, balancer_now)) = (needs(old), needs(object));
    let before = old["spec"].clone();
    let Some(spec) = map(object, "spec") else { return };
    if ports_before && !ports_now {
        let known: Vec<Value> =
            items(&mut before.clone(), "ports").map(|port| port["nodePort"].clone()).collect();
        for port in items(spec, "ports") {
            if known.contains(&port["nodePort"]) {
                edit::remove(port, "nodePort");
            }
        }
        let external = spec["externalIPs"].as_array().is_some_and(|list| !list.is_empty());
        if !external && spec["externalTrafficPolicy"] == before["externalTrafficPolicy"] {
            edit::remove(spec, "externalTrafficPolicy");
        }
    }
    if before["type"] != "ExternalName" && spec["type"] == "ExternalName" {
        for fields in [&["clusterIP", "clusterIPs"][..], &["ipFamilies"], &["ipFamilyPolicy"]] {
            if fields.iter().all(|field| spec[*field] == before[*field]) {
                fields.iter().for_each(|field| edit::remove(spec, field));
            }
        }
    }
    if needs_health_check(&before)
        && !needs_health_check(spec)
        && spec["healthCheckNodePort"] == before["healthCheckNodePort"]
    {
        edit::remove(spec, "healthCheckNodePort");
    }
    if balancer_before && !balancer_now {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec[field] == before[field] {
                edit::remove(spec, field);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_type_takes_the_old_types_fields_along() {
        let old = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true, "ports": [{"port": 80, "nodePort": 30080}]}, "status": {}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        (SERVICE.prepare_update)(&mut new, &old);
        assert_eq!(new["spec"], json!({"type": "ClusterIP", "ports": [{"port": 80}]}));
        assert!(validate_service(&new, None).iter().all(|one| {
            !["nodePort", "NodePorts", "externalTrafficPolicy"].iter().any(|of| one.field.ends_with(of))
        }));
        let mut named = old.clone();
        for (field, value) in [("clusterIP", json!("10.96.0.7")), ("ipFamilyPolicy", json!("SingleStack"))] {
            named["spec"][field] = value;
        }
        let before = named.clone();
        named["spec"]["type"] = json!("ExternalName");
        (SERVICE.prepare_update)(&mut named, &before);
        assert!(named["spec"]["clusterIP"].is_null() && named["spec"]["ipFamilyPolicy"].is_null(), "{named}");
        let mut chosen = old.clone();
        chosen["spec"]["type"] = json!("NodePort");
        (SERVICE.prepare_update)(&mut chosen, &old);
        assert_eq!(chosen["spec"]["ports"][0]["nodePort"], 30080, "a node port stays a node port");
    }

    #[test]
    fn affinity_and_policies_have_upstreams_defaults() {
        let mut service =
            json!({"spec": {"sessionAffinity": "ClientIP", "type": "NodePort", "ports": [{"port": 80}]}});
        (SERVICE.default)(&mut service);
        assert_eq!(service["spec"]["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
        assert_eq!(service["spec"]["externalTrafficPolicy"], "Cluster");
        service["spec"]["sessionAffinity"] = json!("None");
        (SERVICE.default)(&mut service);
        assert!(service["spec"]["sessionAffinityConfig"].is_null());
    }
}
