//! The defaults of pods and of the pod templates in everything that makes pods
//! (`k8s.io/kubernetes/pkg/apis/core/v1/defaults.go`).

use serde_json::{Value, json};

use super::edit::{default, default_zero, existing, items, map, set};
use crate::api::quantity::Quantity;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// What only a pod has, not a template.
pub fn pod(object: &mut Value) {
    let Some(spec) = map(object, "spec") else { return };
    default(spec, "enableServiceLinks", true);
    pod_spec(spec);
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers"] {
        for container in items(spec, list) {
            requests_from_limits(container);
            for port in items(container, "ports").filter(|_| host_network) {
                let own = port["containerPort"].clone();
                default_zero(port, "hostPort", own);
            }
        }
    }
}

/// A template's spec, wherever it is: `template` is a PodTemplateSpec.
pub fn template(template: &mut Value) {
    if let Some(spec) = map(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "schedulerName", "default-scheduler");
    map(spec, "securityContext");
    service_account(spec);
    for list in CONTAINER_LISTS {
        items(spec, list).for_each(container);
    }
    items(spec, "volumes").for_each(volume);
}

/// The deprecated `serviceAccount` mirrors `serviceAccountName`.
pub fn service_account(spec: &mut Value) {
    let old_name = spec["serviceAccount"].clone();
    if old_name.is_string() {
        default(spec, "serviceAccountName", old_name);
    }
    if let Some(name) = spec["serviceAccountName"].as_str().map(str::to_owned) {
        set(spec, "serviceAccount", json!(name));
    }
}

fn container(container: &mut Value) {
    let policy =
        if is_latest(container["image"].as_str().unwrap_or_default()) { "Always" } else { "IfNotPresent" };
    default(container, "imagePullPolicy", policy);
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    map(container, "resources").map(resources);
    for port in items(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for variable in items(container, "env") {
        if let Some(field) = existing(variable, "valueFrom").and_then(|from| existing(from, "fieldRef")) {
            default(field, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = existing(container, name) {
            probe(found);
        }
    }
    if let Some(lifecycle) = existing(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            existing(lifecycle, hook)
                .and_then(|hook| existing(hook, "httpGet"))
                .into_iter()
                .for_each(http_get);
        }
    }
}

/// Without a tag, or with `latest`, and not pinned by digest.
fn is_latest(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    match (last.contains('@'), last.split_once(':')) {
        (true, _) => false,
        (false, Some((_, tag))) => tag == "latest",
        (false, None) => true,
    }
}

fn probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    existing(probe, "httpGet").into_iter().for_each(http_get);
    if let Some(grpc) = existing(probe, "grpc").filter(|grpc| grpc["service"].is_null()) {
        set(grpc, "service", json!(""));
    }
}

fn http_get(action: &mut Value) {
    default(action, "path", "/");
    default(action, "scheme", "HTTP");
}

fn volume(volume: &mut Value) {
    let Some(own) = volume.as_object_mut() else { return };
    if own.len() <= 1 {
        own.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(found) = existing(volume, source) {
            default(found, "defaultMode", 420);
            downward_items(found);
            for projected in items(found, "sources") {
                if let Some(token) = existing(projected, "serviceAccountToken") {
                    default(token, "expirationSeconds", 3600);
                }
                existing(projected, "downwardAPI").into_iter().for_each(downward_items);
            }
        }
    }
    if let Some(path) = existing(volume, "hostPath").filter(|path| path["type"].is_null()) {
        set(path, "type", json!(""));
    }
}

fn downward_items(source: &mut Value) {
    for item in items(source, "items") {
        if let Some(field) = existing(item, "fieldRef") {
            default(field, "apiVersion", "v1");
        }
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(found) = existing(container, "resources") else { return };
    let Some(limits) = found["limits"].as_object().cloned() else { return };
    if let Some(requests) = map(found, "requests") {
        for (name, limit) in limits {
            default(requests, &name, limit);
        }
    }
}

/// Amounts in canonical form, as a real API server gives them back.
pub fn resources(resources: &mut Value) {
    for side in ["limits", "requests"] {
        existing(resources, side).into_iter().for_each(amounts);
    }
}

/// A map of resource names to amounts.
pub fn amounts(list: &mut Value) {
    for (_, amount) in list.as_object_mut().into_iter().flatten() {
        if let Some(quantity) = amount.as_str().and_then(|text| Quantity::parse(text).ok()) {
            *amount = json!(quantity.to_string());
        }
    }
}
