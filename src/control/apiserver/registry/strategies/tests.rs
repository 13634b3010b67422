use serde_json::{Value, json};

use super::super::{all, find};
use super::*;

fn defaulted(group: &str, plural: &str, mut object: Value) -> Value {
    (of(group, plural).default)(&mut object);
    object
}

#[test]
fn a_bare_pod_gets_upstreams_defaults() {
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "0.5"}}, "livenessProbe": {"httpGet": {"port": 80}}}],
        "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}]}});
    let expect = json!({"spec": {
        "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}},
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}],
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "schedulerName": "default-scheduler", "securityContext": {}, "enableServiceLinks": true}});
    assert_eq!(defaulted("", "pods", pod), expect);
}

#[test]
fn the_pull_policy_follows_the_tag() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("reg:5000/nginx", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
    ] {
        let pod = defaulted("", "pods", json!({"spec": {"containers": [{"name": "a", "image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], policy, "{image}");
    }
}

#[test]
fn a_bare_deployment_and_service_get_upstreams_defaults() {
    let deployment =
        defaulted("apps", "deployments", json!({"spec": {"template": {"spec": {"containers": []}}}}));
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(deployment["spec"]["progressDeadlineSeconds"], 600);
    assert!(deployment["spec"]["template"]["spec"]["enableServiceLinks"].is_null());
    let service = defaulted("", "services", json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        service,
        json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"}})
    );
}

#[test]
fn secrets_fold_string_data_and_namespaces_name_themselves() {
    let secret = defaulted("", "secrets", json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}}));
    assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}}));
    let namespace = defaulted("", "namespaces", json!({"metadata": {"name": "x"}}));
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "x");
}

#[test]
fn an_update_keeps_the_status_and_counts_changes_of_the_spec() {
    let strategy = of("apps", "deployments");
    let old = json!({"metadata": {"generation": 4}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let mut same = json!({"metadata": {}, "spec": {"replicas": 1}, "status": {"replicas": 9}});
    (strategy.prepare_update)(&mut same, &old);
    assert_eq!((&same["metadata"]["generation"], &same["status"]["replicas"]), (&json!(4), &json!(1)));
    let mut changed = json!({"metadata": {}, "spec": {"replicas": 2}});
    (strategy.prepare_update)(&mut changed, &old);
    assert_eq!(changed["metadata"]["generation"], 5);
}

#[test]
fn qos_follows_requests_and_limits() {
    let class = |resources: Value| qos::class(&json!({"spec": {"containers": [{"resources": resources}]}}));
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    let both = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(class(json!({"limits": both, "requests": both})), "Guaranteed");
    assert_eq!(class(json!({"limits": both, "requests": {"cpu": "500m", "memory": "1Gi"}})), "Burstable");
}

#[test]
fn selectable_fields_are_upstreams() {
    let pod = json!({"spec": {"nodeName": "node-1"}, "status": {"phase": "Running"}});
    let fields = of("", "pods").fields;
    assert_eq!(fields(&pod, "spec.nodeName").as_deref(), Some("node-1"));
    assert_eq!(fields(&pod, "status.podIP").as_deref(), Some(""));
    assert_eq!(fields(&pod, "spec.image"), None);
    assert_eq!((of("", "nodes").fields)(&pod, "spec.unschedulable").as_deref(), Some("false"));
}

#[test]
fn no_strategy_panics_on_an_odd_shape() {
    let odd = [
        json!(null),
        json!(1),
        json!({"spec": [], "metadata": "x"}),
        json!({"spec": {"containers": {}, "ports": 1}}),
    ];
    for row in all() {
        for shape in &odd {
            let mut object = shape.clone();
            (row.strategy.default)(&mut object);
            (row.strategy.prepare_create)(&mut object);
            (row.strategy.prepare_update)(&mut object, shape);
            let _ = ((row.strategy.validate)(&object, None), (row.strategy.validate)(&object, Some(shape)));
            let _ = (
                (row.strategy.fields)(&object, "status.phase"),
                (row.strategy.row)(&object, jiff::Timestamp::now()),
            );
        }
    }
    assert!(find("", "v1", "pods").is_some());
}
