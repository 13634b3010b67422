//! Tables of the cluster's own objects: Nodes, Namespaces, Events, CertificateSigningRequests, Leases.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, items, number, string, text, wide};
use crate::api::age;
use crate::control::apiserver::registry::Column;

const ADDRESSES: &str = "List of addresses reachable to the node. Queried from cloud provider, if available.";

pub const NODE: &[Column] = &[
    NAME,
    text("Status", "The status of the node"),
    text("Roles", "The roles of the node"),
    AGE,
    text("Version", "Kubelet Version reported by the node."),
    wide("Internal-IP", ADDRESSES),
    wide("External-IP", ADDRESSES),
    wide(
        "OS-Image",
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    wide(
        "Kernel-Version",
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

pub fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let unknown = |pointer: &str| match string(object, pointer) {
        "" => Value::from("<unknown>"),
        text => text.into(),
    };
    vec![
        cells::name(object),
        node_status(object).into(),
        node_roles(object),
        cells::age(object, now),
        string(object, "/status/nodeInfo/kubeletVersion").into(),
        address(object, "InternalIP"),
        address(object, "ExternalIP"),
        unknown("/status/nodeInfo/osImage"),
        unknown("/status/nodeInfo/kernelVersion"),
        unknown("/status/nodeInfo/containerRuntimeVersion"),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = items(node, "/status/conditions").iter().find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => value.as_str().filter(|role| key == "kubernetes.io/role" && !role.is_empty()),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    cells::none_if_empty(&roles.join(","))
}

fn address(node: &Value, kind: &str) -> Value {
    let found = items(node, "/status/addresses").iter().find(|address| address["type"] == kind);
    cells::none_if_empty(found.map_or("", |address| string(address, "/address")))
}

pub const NAMESPACE: &[Column] = &[NAME, text("Status", "The status of the namespace"), AGE];

pub fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), string(object, "/status/phase").into(), cells::age(object, now)]
}

pub const EVENT: &[Column] = &[
    text("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    text("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    text(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
    ),
    text("Object", "The object that this event is about."),
    wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement.",
    ),
    wide("Source", "The component reporting this event. Should be a short machine understandable string."),
    text("Message", "A human-readable description of the status of this operation."),
    wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    wide("Count", "The number of times this event has occurred."),
    Column { priority: 1, ..NAME },
];

pub fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let or_event_time = |pointer: &str| match string(object, pointer) {
        "" => cells::since(object, "/eventTime", now),
        _ => cells::since(object, pointer, now),
    };
    let first = or_event_time("/firstTimestamp");
    let (last, count) = match &object["series"] {
        Value::Object(_) => {
            (cells::since(object, "/series/lastObservedTime", now), number(object, "/series/count"))
        }
        _ => (or_event_time("/lastTimestamp"), number(object, "/count").max(1)),
    };
    let about = &object["involvedObject"];
    let target = match string(about, "/name") {
        "" => string(about, "/kind").to_lowercase(),
        name => format!("{}/{name}", string(about, "/kind").to_lowercase()),
    };
    vec![
        last.into(),
        string(object, "/type").into(),
        string(object, "/reason").into(),
        target.into(),
        string(about, "/fieldPath").into(),
        source(object).into(),
        string(object, "/message").trim().into(),
        first.into(),
        count.into(),
        cells::name(object),
    ]
}

fn source(event: &Value) -> String {
    let or = |pointer: &str, other: &str| match string(event, pointer) {
        "" => string(event, other).to_owned(),
        text => text.to_owned(),
    };
    let component = or("/source/component", "/reportingComponent");
    match or("/source/host", "/reportingInstance").as_str() {
        "" => component,
        host => format!("{component}, {host}"),
    }
}

pub const SIGNING_REQUEST: &[Column] = &[
    NAME,
    AGE,
    text("SignerName", "signerName indicates the requested signer, and is a qualified name."),
    text("Requestor", "username contains the name of the user that created the CertificateSigningRequest."),
    text(
        "RequestedDuration",
        "expirationSeconds is the requested duration of validity of the issued certificate.",
    ),
    text(
        "Condition",
        "conditions applied to the request. Known conditions are \"Approved\", \"Denied\", and \"Failed\".",
    ),
];

pub fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let has =
        |kind: &str| items(object, "/status/conditions").iter().any(|condition| condition["type"] == kind);
    let mut condition = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_owned();
    if has("Failed") {
        condition.push_str(",Failed");
    }
    if !string(object, "/status/certificate").is_empty() {
        condition.push_str(",Issued");
    }
    let duration = match object.pointer("/spec/expirationSeconds").and_then(Value::as_i64) {
        Some(seconds) => age::human(seconds),
        None => "<none>".to_owned(),
    };
    vec![
        cells::name(object),
        cells::age(object, now),
        cells::or_none(object, "/spec/signerName"),
        string(object, "/spec/username").into(),
        duration.into(),
        condition.into(),
    ]
}

pub const LEASE: &[Column] =
    &[NAME, text("Holder", "holderIdentity contains the identity of the holder of a current lease."), AGE];

pub fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), string(object, "/spec/holderIdentity").into(), cells::age(object, now)]
}
