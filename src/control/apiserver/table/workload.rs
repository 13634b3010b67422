//! Tables of what keeps pods running: Deployments, ReplicaSets, ReplicationControllers, DaemonSets, StatefulSets, ControllerRevisions, PodTemplates.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, integer, items, number, string, text, wide};
use crate::control::apiserver::registry::Column;

const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
const SELECTOR: Column = wide("Selector", "Label selector for pods.");

pub const DEPLOYMENT: &[Column] = &[
    NAME,
    text("Ready", "Number of the pod with ready state"),
    text(
        "Up-to-date",
        "Total number of non-terminated pods targeted by this deployment that have the desired template spec.",
    ),
    text(
        "Available",
        "Total number of available pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = number(object, "/status/readyReplicas");
    let mut row = vec![
        cells::name(object),
        format!("{ready}/{}", number(object, "/spec/replicas")).into(),
        number(object, "/status/updatedReplicas").into(),
        number(object, "/status/availableReplicas").into(),
        cells::age(object, now),
    ];
    row.extend(template_and_selector(object));
    row
}

pub const REPLICA_SET: &[Column] = &[
    NAME,
    integer("Desired", "Number of desired pods."),
    integer("Current", "Most recently observed number of non-terminating pods."),
    integer("Ready", "Number of non-terminating pods targeted by this ReplicaSet with a Ready Condition."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut row = vec![
        cells::name(object),
        number(object, "/spec/replicas").into(),
        number(object, "/status/replicas").into(),
        number(object, "/status/readyReplicas").into(),
        cells::age(object, now),
    ];
    row.extend(template_and_selector(object));
    row
}

pub const REPLICATION_CONTROLLER: &[Column] = &[
    NAME,
    integer("Desired", "Number of desired pods."),
    integer("Current", "Most recently observed number of non-terminating pods."),
    integer(
        "Ready",
        "Number of non-terminating pods targeted by this ReplicationController with a Ready Condition.",
    ),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut row = replica_set(object, now);
    // Its selector is a plain map.
    row.pop();
    row.push(cells::labels(object, "/spec/selector"));
    row
}

pub const STATEFUL_SET: &[Column] =
    &[NAME, text("Ready", "Number of the pod with ready state"), AGE, CONTAINERS, IMAGES];

pub fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let ready = number(object, "/status/readyReplicas");
    let [containers, images, _] = template_and_selector(object);
    vec![
        cells::name(object),
        format!("{ready}/{}", number(object, "/spec/replicas")).into(),
        cells::age(object, now),
        containers,
        images,
    ]
}

pub const DAEMON_SET: &[Column] = &[
    NAME,
    integer("Desired", "The total number of nodes that should be running the daemon pod."),
    integer(
        "Current",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run it.",
    ),
    integer(
        "Ready",
        "Number of nodes that should be running the daemon pod and have one or more of it running with a Ready Condition.",
    ),
    integer("Up-to-date", "The total number of nodes that are running updated daemon pod"),
    integer(
        "Available",
        "The number of nodes that should be running the daemon pod and have one or more of it running and available.",
    ),
    text("Node Selector", "NodeSelector is a selector which must be true for the pod to fit on a node."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut row = vec![
        cells::name(object),
        number(object, "/status/desiredNumberScheduled").into(),
        number(object, "/status/currentNumberScheduled").into(),
        number(object, "/status/numberReady").into(),
        number(object, "/status/updatedNumberScheduled").into(),
        number(object, "/status/numberAvailable").into(),
        cells::labels(object, "/spec/template/spec/nodeSelector"),
        cells::age(object, now),
    ];
    row.extend(template_and_selector(object));
    row
}

pub const REVISION: &[Column] = &[
    NAME,
    text("Controller", "Controller of the object"),
    text("Revision", "revision indicates the revision of the state represented by Data."),
    AGE,
];

pub fn revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = items(object, "/metadata/ownerReferences");
    let controller = match owners.iter().find(|owner| owner["controller"] == true) {
        Some(owner) => {
            let (version, kind) = (string(owner, "/apiVersion"), string(owner, "/kind").to_lowercase());
            let qualified = match version.split_once('/') {
                Some((group, _)) => format!("{kind}.{group}"),
                None => kind,
            };
            format!("{qualified}/{}", string(owner, "/name")).into()
        }
        None => "<none>".into(),
    };
    vec![cells::name(object), controller, number(object, "/revision").into(), cells::age(object, now)]
}

pub const POD_TEMPLATE: &[Column] = &[
    NAME,
    text("Containers", "Names of each container in the template."),
    text("Images", "Images referenced by each container in the template."),
    text("Pod Labels", "The labels for the pod template."),
];

pub fn pod_template(object: &Value, _now: Timestamp) -> Vec<Value> {
    let containers = items(object, "/template/spec/containers");
    vec![
        cells::name(object),
        join(containers, "/name"),
        join(containers, "/image"),
        cells::labels(object, "/template/metadata/labels"),
    ]
}

fn template_and_selector(object: &Value) -> [Value; 3] {
    let containers = items(object, "/spec/template/spec/containers");
    [join(containers, "/name"), join(containers, "/image"), cells::selector(object, "/spec/selector")]
}

pub(super) fn join(containers: &[Value], pointer: &str) -> Value {
    let texts: Vec<&str> = containers.iter().map(|container| string(container, pointer)).collect();
    texts.join(",").into()
}
