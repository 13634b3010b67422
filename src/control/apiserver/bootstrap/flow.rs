//! The flow control objects every cluster has (`k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap`).

use serde_json::{Value, json};

pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Who a flow is of: everything they do, but for the leases of a namespace where that is said.
enum Whom {
    Groups(&'static [&'static str]),
    Users(&'static [&'static str]),
    Accounts(&'static str),
}

/// Name, priority level, precedence, by namespace rather than user, whom.
type Flow = (&'static str, &'static str, i64, &'static str, Whom);

const MASTERS: &str = "system:masters";
const EVERYBODY: &[&str] = &["system:unauthenticated", "system:authenticated"];
const FLOWS: &[Flow] = &[
    ("exempt", "exempt", 1, "", Whom::Groups(&[MASTERS])),
    ("catch-all", "catch-all", 10000, "ByUser", Whom::Groups(EVERYBODY)),
    ("system-nodes", "system", 500, "ByUser", Whom::Groups(&["system:nodes"])),
    (
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        Whom::Users(&["system:kube-controller-manager"]),
    ),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", Whom::Users(&["system:kube-scheduler"])),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", Whom::Accounts("kube-system")),
    ("service-accounts", "workload-low", 9000, "ByUser", Whom::Groups(&["system:serviceaccounts"])),
    ("global-default", "global-default", 9900, "ByUser", Whom::Groups(EVERYBODY)),
];

/// Name, shares, lendable percent, and queues, hand size and length where requests wait.
type Level = (&'static str, i64, i64, Option<(i64, i64, i64)>);

const LEVELS: &[Level] = &[
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

/// Every object with its resource; levels before what refers to them.
pub fn objects() -> Vec<(&'static str, Value)> {
    let mut all = vec![level(
        "exempt",
        &json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
    )];
    for (name, shares, lendable, queues) in LEVELS {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => json!({"type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}),
        };
        let limited = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        all.push(level(name, &json!({"type": "Limited", "limited": limited})));
    }
    for (name, level, precedence, by, whom) in FLOWS {
        let rule = json!({"subjects": subjects(whom), "resourceRules": everything(), "nonResourceRules": any_path()});
        all.push(flow(name, level, *precedence, by, &json!([rule])));
    }
    all.extend(particular());
    all
}

/// Those that are about some requests only.
fn particular() -> Vec<(&'static str, Value)> {
    let lease = |namespaces: Value| {
        let verbs = ["get", "create", "update"];
        json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs, "namespaces": namespaces}])
    };
    let nodes = subjects(&Whom::Groups(&["system:nodes"]));
    let status = json!({"apiGroups": [""], "resources": ["nodes", "nodes/status"], "verbs": ["*"], "clusterScope": true,
        "namespaces": ["*"]});
    let renewed = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"], "namespaces": ["*"]});
    let components = subjects(&Whom::Users(&["system:kube-controller-manager", "system:kube-scheduler"]));
    let probes = json!([{"subjects": subjects(&Whom::Groups(EVERYBODY)),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}]);
    vec![
        flow("probes", "exempt", 2, "", &probes),
        flow(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            &json!([{"subjects": components, "resourceRules": lease(json!(["kube-system"]))}]),
        ),
        flow(
            "workload-leader-election",
            "leader-election",
            200,
            "ByUser",
            &json!([{"subjects": subjects(&Whom::Accounts("kube-system")), "resourceRules": lease(json!(["*"]))}]),
        ),
        flow(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            &json!([{
            "subjects": subjects(&Whom::Users(&["system:kube-controller-manager"])),
            "resourceRules": [{"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get", "create", "update"],
                "namespaces": ["*"]}]}]),
        ),
        flow(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            &json!([{"subjects": nodes, "resourceRules": [status, renewed]}]),
        ),
    ]
}

fn subjects(whom: &Whom) -> Value {
    match whom {
        Whom::Groups(names) => {
            names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
        }
        Whom::Users(names) => {
            names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
        }
        Whom::Accounts(namespace) => {
            json!([{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": namespace}}])
        }
    }
}

fn everything() -> Value {
    json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "clusterScope": true, "namespaces": ["*"]}])
}

fn any_path() -> Value {
    json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}])
}

fn named(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "spec": spec, "status": {},
        "metadata": {"name": name, "generation": 1, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}})
}

fn level(name: &str, spec: &Value) -> (&'static str, Value) {
    ("prioritylevelconfigurations", named("PriorityLevelConfiguration", name, spec))
}

fn flow(name: &str, level: &str, precedence: i64, by: &str, rules: &Value) -> (&'static str, Value) {
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules});
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    let mut object = named("FlowSchema", name, &spec);
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"
    );
    object["status"] = json!({"conditions": [{"type": "Dangling", "status": "False", "reason": "Found", "message": message,
        "lastTransitionTime": crate::control::apiserver::handlers::meta::now()}]});
    ("flowschemas", object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::registry;

    #[test]
    fn every_one_is_valid_and_every_flow_has_its_level() {
        let all = objects();
        for (plural, object) in &all {
            let row = registry::by_name(GROUP, plural).unwrap();
            (row.decode)(object).unwrap();
            let causes = (row.strategy.validate)(object, None);
            let texts: Vec<&str> = causes.iter().map(|cause| cause.message.as_str()).collect();
            assert!(texts.is_empty(), "{}: {texts:?}", object["metadata"]["name"]);
            let level = &object["spec"]["priorityLevelConfiguration"]["name"];
            assert!(
                level.is_null()
                    || all.iter().any(
                        |(_, other)| other["kind"] != "FlowSchema" && other["metadata"]["name"] == *level
                    )
            );
        }
        assert_eq!(all.len(), 21);
    }
}
