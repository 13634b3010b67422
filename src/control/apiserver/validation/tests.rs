use serde_json::{Value, json};

use crate::control::apiserver::registry::strategies::of;

/// Defaults an object and says what is wrong with it.
fn wrong(group: &str, plural: &str, mut object: Value, old: Option<Value>) -> Vec<String> {
    let strategy = of(group, plural);
    (strategy.default)(&mut object);
    let old = old.map(|mut old| {
        (strategy.default)(&mut old);
        old
    });
    (strategy.validate)(&object, old.as_ref()).iter().map(ToString::to_string).collect()
}

fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": containers}})
}

#[test]
fn a_good_pod_has_nothing_wrong() {
    assert_eq!(wrong("", "pods", pod(json!([{"name": "a", "image": "nginx"}])), None), Vec::<String>::new());
}

#[test]
fn bad_pods_are_refused_in_upstreams_words() {
    let table = [
        (pod(json!([])), "spec.containers: Required value"),
        (pod(json!([{"name": "a"}])), "spec.containers[0].image: Required value"),
        (pod(json!([{"image": "x"}])), "spec.containers[0].name: Required value"),
        (
            pod(json!([{"name": "a", "image": "x"}, {"name": "a", "image": "x"}])),
            r#"spec.containers[1].name: Duplicate value: "a""#,
        ),
        (
            pod(json!([{"name": "a", "image": "x", "ports": [{"containerPort": 70000}]}])),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            pod(json!([{"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}])),
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            pod(json!([{"name": "a", "image": "x", "livenessProbe": {}}])),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            pod(
                json!([{"name": "a", "image": "x", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]),
            ),
            r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
        ),
        (
            json!({"metadata": {"name": "web"}, "spec": {"restartPolicy": "Sometimes", "containers": [{"name": "a", "image": "x"}]}}),
            r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
        ),
    ];
    for (pod, expect) in table {
        assert_eq!(wrong("", "pods", pod, None), [expect]);
    }
    let named = json!({"metadata": {"name": "Web"}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
    let text = &wrong("", "pods", named, None)[0];
    assert!(
        text.starts_with(
            r#"metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of"#
        ),
        "{text}"
    );
}

#[test]
fn a_running_pod_changes_its_image_and_little_else() {
    let old = pod(json!([{"name": "a", "image": "x"}]));
    let image = pod(json!([{"name": "a", "image": "y", "imagePullPolicy": "Always"}]));
    assert!(wrong("", "pods", image, Some(old.clone())).is_empty());
    let command = pod(json!([{"name": "a", "image": "x", "command": ["sh"]}]));
    let text = &wrong("", "pods", command, Some(old.clone()))[0];
    assert!(
        text.starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        ),
        "{text}"
    );
    assert!(text.ends_with("+ \tcontainers[0].command: [\"sh\"]\n"), "{text}");
    let more = pod(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]));
    assert_eq!(
        wrong("", "pods", more, Some(old)),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

fn deployment(selector: Value, labels: Value) -> Value {
    json!({"metadata": {"name": "d"}, "spec": {"selector": selector, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "a", "image": "x"}]}}}})
}

#[test]
fn selectors_match_their_template_and_never_change() {
    let good = deployment(json!({"matchLabels": {"a": "b"}}), json!({"a": "b"}));
    assert!(wrong("apps", "deployments", good.clone(), None).is_empty());
    let other = deployment(json!({"matchLabels": {"a": "c"}}), json!({"a": "b"}));
    assert_eq!(
        wrong("apps", "deployments", other, None),
        [
            r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#
        ]
    );
    let changed = deployment(json!({"matchLabels": {"a": "c"}}), json!({"a": "c"}));
    assert_eq!(
        wrong("apps", "deployments", changed, Some(good)),
        [r#"spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable"#]
    );
    let none = deployment(Value::Null, json!({"a": "b"}));
    assert_eq!(wrong("apps", "deployments", none, None), ["spec.selector: Required value"]);
}

#[test]
fn services_config_and_access_are_checked() {
    let service = |spec: Value| json!({"metadata": {"name": "web"}, "spec": spec});
    assert_eq!(wrong("", "services", service(json!({})), None), ["spec.ports: Required value"]);
    let two = service(json!({"ports": [{"port": 80}, {"port": 81}]}));
    assert_eq!(
        wrong("", "services", two, None),
        ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"]
    );
    let (old, new) = (
        json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}),
        json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]}),
    );
    assert_eq!(
        wrong("", "services", service(new), Some(service(old))),
        [r#"spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set"#]
    );
    let frozen = json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "b"}});
    let thawed = json!({"metadata": {"name": "c"}, "immutable": true, "data": {"a": "c"}});
    assert_eq!(
        wrong("", "configmaps", thawed, Some(frozen)),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let binding = |name: &str| {
        json!({"metadata": {"name": "system:b"}, "roleRef": {"kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "name": "ann"}]})
    };
    assert!(wrong("rbac.authorization.k8s.io", "clusterrolebindings", binding("x"), None).is_empty());
    let text =
        &wrong("rbac.authorization.k8s.io", "clusterrolebindings", binding("y"), Some(binding("x")))[0];
    assert!(text.ends_with(": cannot change roleRef"), "{text}");
    let labelled = json!({"metadata": {"name": "c", "labels": {"a b": "c"}}});
    assert!(
        wrong("", "configmaps", labelled, None)[0]
            .starts_with(r#"metadata.labels: Invalid value: "a b": name part must consist of"#)
    );
}
