use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// A pod's READY, STATUS and RESTARTS.
fn pod_words(pod: Value) -> [String; 3] {
    let row = pod::row(&pod, now());
    [1, 2, 3].map(|at: usize| row[at].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_pods_status_word_is_what_kubectl_prints() {
    let one = json!([{"name": "a"}]);
    let table = [
        (json!({"spec": {"containers": one}, "status": {"phase": "Pending"}}), ["0/1", "Pending", "0"]),
        (
            json!({"spec": {"containers": one}, "status": {"phase": "Pending", "containerStatuses":
            [{"name": "a", "state": {"waiting": {"reason": "ContainerCreating"}}}]}}),
            ["0/1", "ContainerCreating", "0"],
        ),
        (
            json!({"spec": {"containers": one}, "status": {"phase": "Running", "containerStatuses":
            [{"name": "a", "ready": true, "restartCount": 3, "state": {"running": {}},
              "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:55Z"}}}]}}),
            ["1/1", "Running", "3 (5s ago)"],
        ),
        (
            json!({"spec": {"containers": one}, "status": {"phase": "Running", "containerStatuses":
            [{"name": "a", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
              "lastState": {"terminated": {"finishedAt": "2026-01-01T00:58:00Z"}}}]}}),
            ["0/1", "CrashLoopBackOff", "2 (2m ago)"],
        ),
        (
            json!({"spec": {"containers": one}, "status": {"phase": "Succeeded", "containerStatuses":
            [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}}),
            ["0/1", "Completed", "0"],
        ),
        (
            json!({"spec": {"containers": one}, "status": {"phase": "Failed", "containerStatuses":
            [{"name": "a", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}}),
            ["0/1", "Error", "0"],
        ),
        (
            json!({"spec": {"containers": one}, "status": {"phase": "Failed", "containerStatuses":
            [{"name": "a", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}}),
            ["0/1", "Signal:9", "0"],
        ),
        (
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:59:59Z"}, "spec": {"containers": one},
            "status": {"phase": "Running", "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]}}),
            ["1/1", "Terminating", "0"],
        ),
        (
            json!({"spec": {"containers": one, "initContainers": [{"name": "i"}, {"name": "j"}]}, "status": {"phase": "Pending",
            "initContainerStatuses": [{"name": "i", "state": {"running": {}}}, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]}}),
            ["0/1", "Init:0/2", "0"],
        ),
        (
            json!({"spec": {"containers": one, "initContainers": [{"name": "i"}]}, "status": {"phase": "Pending",
            "initContainerStatuses": [{"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}}),
            ["0/1", "Init:Error", "1"],
        ),
        (
            json!({"spec": {"containers": one, "initContainers": [{"name": "s", "restartPolicy": "Always"}]}, "status": {"phase": "Running",
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]}}),
            ["2/2", "Running", "0"],
        ),
        (
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": {"phase": "Running", "containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "b", "ready": true, "state": {"running": {}}}]}}),
            ["1/2", "NotReady", "0"],
        ),
        (
            json!({"spec": {"containers": one}, "status": {"phase": "Failed", "reason": "Evicted"}}),
            ["0/1", "Evicted", "0"],
        ),
    ];
    for (pod, expect) in table {
        assert_eq!(pod_words(pod), expect);
    }
}

#[test]
fn other_kinds_print_their_columns() {
    let service = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:58:00Z"}, "spec": {"type": "NodePort",
        "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"app": "web"}}});
    assert_eq!(
        network::service(&service, now()),
        [
            json!("web"),
            json!("NodePort"),
            json!("10.96.0.9"),
            json!("<none>"),
            json!("80:30080/TCP"),
            json!("2m"),
            json!("app=web")
        ]
    );
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(
        cluster::node(&node, now())[1..3],
        [json!("Ready,SchedulingDisabled"), json!("control-plane")]
    );
    let request = json!({"spec": {"expirationSeconds": 3600}, "status": {"certificate": "x", "conditions": [{"type": "Approved"}]}});
    assert_eq!(cluster::signing_request(&request, now())[4..], [json!("60m"), json!("Approved,Issued")]);
    let slice = json!({"addressType": "IPv4", "ports": [{"port": 6443}],
        "endpoints": [{"addresses": ["1.1.1.1"]}, {"addresses": ["1.1.1.2"]}, {"addresses": ["1.1.1.3"]}, {"addresses": ["1.1.1.4"]}]});
    assert_eq!(
        network::endpoint_slice(&slice, now())[2..4],
        [json!("6443"), json!("1.1.1.1,1.1.1.2,1.1.1.3 + 1 more...")]
    );
}

#[test]
fn every_kinds_row_has_a_cell_for_each_column() {
    for row in crate::control::apiserver::registry::all() {
        let cells = (row.strategy.row)(&json!({"metadata": {"name": "x"}}), now());
        assert_eq!(cells.len(), row.strategy.columns.len(), "{}", row.plural);
    }
}
