//! What is particular to each kind: defaults, preparation, selectable fields, table columns.
//!
//! One `Strategy` a kind, gathered in `of`. Upstream spreads this over `pkg/apis/*/v1/defaults.go`,
//! `pkg/registry/*/strategy.go` and `pkg/printers`; validation has a folder of its own.

mod access;
mod autoscaling;
mod batch;
mod cluster;
mod config;
mod disruption;
pub mod edit;
mod extensions;
mod flow;
mod ingress;
mod network;
mod pod;
mod pod_defaults;
mod policy;
mod qos;
mod storage;
mod workload;

use serde_json::Value;

use super::Strategy;
use crate::control::apiserver::aggregate::definition as definition_of_service;
use crate::control::apiserver::components;
use crate::control::apiserver::custom::definition;
use crate::control::apiserver::table::plain;
use crate::control::apiserver::validation::metadata;

/// The strategy of a version that is kept in another.
pub fn second(group: &str) -> &'static Strategy {
    match group {
        "autoscaling" => &autoscaling::AUTOSCALER_V1,
        _ => &cluster::EVENTS_EVENT,
    }
}

/// The strategy of a resource.
pub fn of(group: &str, plural: &str) -> &'static Strategy {
    match (group, plural) {
        ("", "namespaces") => &cluster::NAMESPACE,
        ("", "componentstatuses") => &components::STRATEGY,
        ("apiregistration.k8s.io", "apiservices") => &definition_of_service::STRATEGY,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => &extensions::MUTATING_POLICY,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => &extensions::MUTATING_BINDING,
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations" | "validatingwebhookconfigurations",
        ) => &extensions::WEBHOOKS,
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => &extensions::POLICY,
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => &extensions::BINDING,
        ("apiextensions.k8s.io", "customresourcedefinitions") => &definition::STRATEGY,
        ("", "nodes") => &cluster::NODE,
        ("", "events") => &cluster::EVENT,
        ("coordination.k8s.io", "leases") => &cluster::LEASE,
        ("certificates.k8s.io", "certificatesigningrequests") => &cluster::SIGNING_REQUEST,
        ("scheduling.k8s.io", "priorityclasses") => &cluster::PRIORITY_CLASS,
        ("", "pods") => &pod::POD,
        ("", "podtemplates") => &workload::POD_TEMPLATE,
        ("apps", "replicasets") => &workload::REPLICA_SET,
        ("apps", "deployments") => &workload::DEPLOYMENT,
        ("apps", "daemonsets") => &workload::DAEMON_SET,
        ("apps", "statefulsets") => &workload::STATEFUL_SET,
        ("", "replicationcontrollers") => &workload::REPLICATION_CONTROLLER,
        ("batch", "jobs") => &batch::JOB,
        ("batch", "cronjobs") => &batch::CRON_JOB,
        ("autoscaling", "horizontalpodautoscalers") => &autoscaling::AUTOSCALER,
        ("policy", "poddisruptionbudgets") => &disruption::BUDGET,
        ("networking.k8s.io", "ingresses") => &ingress::INGRESS,
        ("networking.k8s.io", "ingressclasses") => &ingress::CLASS,
        ("networking.k8s.io", "servicecidrs") => &ingress::SERVICE_CIDR,
        ("networking.k8s.io", "ipaddresses") => &ingress::IP_ADDRESS,
        ("node.k8s.io", "runtimeclasses") => &flow::RUNTIME_CLASS,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => &flow::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => &flow::PRIORITY_LEVEL,
        ("storage.k8s.io", "storageclasses") => &storage::CLASS,
        ("storage.k8s.io", "csidrivers") => &storage::CSI_DRIVER,
        ("storage.k8s.io", "csinodes") => &storage::CSI_NODE,
        ("storage.k8s.io", "csistoragecapacities") => &storage::CSI_CAPACITY,
        ("storage.k8s.io", "volumeattachments") => &storage::ATTACHMENT,
        ("storage.k8s.io", "volumeattributesclasses") => &storage::ATTRIBUTES_CLASS,
        ("apps", "controllerrevisions") => &workload::REVISION,
        ("", "services") => &network::SERVICE,
        ("", "endpoints") => &network::ENDPOINTS,
        ("discovery.k8s.io", "endpointslices") => &network::ENDPOINT_SLICE,
        ("networking.k8s.io", "networkpolicies") => &policy::NETWORK_POLICY,
        ("", "configmaps") => &config::CONFIG_MAP,
        ("", "secrets") => &config::SECRET,
        ("", "serviceaccounts") => &access::SERVICE_ACCOUNT,
        ("rbac.authorization.k8s.io", "roles") => &access::ROLE,
        ("rbac.authorization.k8s.io", "clusterroles") => &access::CLUSTER_ROLE,
        ("rbac.authorization.k8s.io", "rolebindings") => &access::ROLE_BINDING,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &access::CLUSTER_ROLE_BINDING,
        ("", "persistentvolumes") => &storage::VOLUME,
        ("", "persistentvolumeclaims") => &storage::CLAIM,
        ("", "resourcequotas") => &storage::QUOTA,
        ("", "limitranges") => &storage::LIMIT_RANGE,
        _ => &PLAIN,
    }
}

/// For kinds that need nothing of their own, and the rest of those that need little.
pub const PLAIN: Strategy = Strategy {
    default: |_| {},
    validate: metadata::any,
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    fields: metadata_field,
    columns: plain::OTHER,
    row: plain::other,
};

/// The fields every kind can be selected by.
pub fn metadata_field(object: &Value, path: &str) -> Option<String> {
    matches!(path, "metadata.name" | "metadata.namespace").then(|| field(object, path))
}

/// The value at a dotted path as a selector compares it.
fn field(object: &Value, path: &str) -> String {
    match path.split('.').fold(object, |value, part| &value[part]) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A kind's selectable fields: `metadata.*` and the paths listed.
fn selectable(object: &Value, path: &str, known: &[&str]) -> Option<String> {
    match known.contains(&path) {
        true => Some(field(object, path)),
        false => metadata_field(object, path),
    }
}

#[cfg(test)]
mod tests;
