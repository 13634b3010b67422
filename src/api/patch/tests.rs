use serde_json::{Value, json};

use super::*;
use crate::api::merge_keys::of_kind;

fn patched(group: &str, kind: &str, object: Value, patch: Value) -> Value {
    strategic(object, patch.to_string().as_bytes(), of_kind(group, kind)).expect("applies")
}

fn refused(object: Value, patch: Value) -> Status {
    strategic(object, patch.to_string().as_bytes(), of_kind("", "Pod")).expect_err("refused")
}

/// (what, group, kind, object, patch, result)
fn golden() -> Vec<(&'static str, &'static str, &'static str, Value, Value, Value)> {
    let web = json!({"spec": {"containers": [
        {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "two"}]}});
    vec![
        (
            "containers merge by name",
            "",
            "Pod",
            web.clone(),
            json!({"spec": {"containers": [{"name": "b", "image": "three"}, {"name": "c", "image": "four"}]}}),
            json!({"spec": {"containers": [
                {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}]},
                {"name": "b", "image": "three"}, {"name": "c", "image": "four"}]}}),
        ),
        (
            "env merges below containers, null removes a field",
            "",
            "Pod",
            web.clone(),
            json!({"spec": {"containers": [{"name": "a", "image": null, "env": [{"name": "Y", "value": "2"}]}]}}),
            json!({"spec": {"containers": [
                {"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                {"name": "b", "image": "two"}]}}),
        ),
        (
            "an item is deleted by directive",
            "",
            "Pod",
            web.clone(),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "two"}]}}),
        ),
        (
            "a list is replaced by directive",
            "",
            "Pod",
            web.clone(),
            json!({"spec": {"containers": [{"name": "z", "image": "new"}, {"$patch": "replace"}]}}),
            json!({"spec": {"containers": [{"name": "z", "image": "new"}]}}),
        ),
        (
            "a map is replaced by directive",
            "",
            "Pod",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
            json!({"metadata": {"labels": {"c": "3"}}}),
        ),
        (
            "tolerations are atomic",
            "",
            "Pod",
            json!({"spec": {"tolerations": [{"key": "a"}, {"key": "b"}]}}),
            json!({"spec": {"tolerations": [{"key": "c"}]}}),
            json!({"spec": {"tolerations": [{"key": "c"}]}}),
        ),
        (
            "finalizers merge as a set",
            "",
            "Pod",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["c", "a"]}}),
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        ),
        (
            "finalizers are deleted from, in the order asked",
            "",
            "Pod",
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"],
                "$setElementOrder/finalizers": ["d", "a"], "finalizers": ["d"]}}),
            json!({"metadata": {"finalizers": ["d", "a", "c"]}}),
        ),
        (
            "order is set, the server's own items stay near their neighbours",
            "",
            "Pod",
            json!({"spec": {"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "n"}, {"name": "b"}, {"name": "a"}],
                "containers": [{"name": "n", "image": "x"}]}}),
            json!({"spec": {"containers": [{"name": "n", "image": "x"}, {"name": "s"}, {"name": "b"}, {"name": "a"}]}}),
        ),
        (
            "order alone reorders",
            "",
            "Pod",
            web.clone(),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "b", "image": "two"},
                {"name": "a", "image": "one", "env": [{"name": "X", "value": "1"}]}]}}),
        ),
        (
            "retainKeys drops the other volume source",
            "",
            "Pod",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}}),
        ),
        (
            "retainKeys drops rollingUpdate",
            "apps",
            "Deployment",
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        ),
        (
            "service ports merge by port",
            "",
            "Service",
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}}),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080, "name": "http"}, {"port": 443}]}}),
        ),
        (
            "conditions merge by type",
            "",
            "Node",
            json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}]}}),
            json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "x"}]}}),
        ),
        (
            "nulls and directives mean nothing where nothing was",
            "",
            "Pod",
            json!({}),
            json!({"metadata": {"labels": {"a": null, "b": "1"}}, "spec": {"$retainKeys": ["volumes"], "volumes": []}}),
            json!({"metadata": {"labels": {"b": "1"}}, "spec": {"volumes": []}}),
        ),
        (
            "a template's containers merge too",
            "apps",
            "Deployment",
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}}}),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "tty": true}]}}}}),
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1", "tty": true}]}}}}),
        ),
        (
            "data of a config map merges as a map",
            "",
            "ConfigMap",
            json!({"data": {"a": "1", "b": "2"}}),
            json!({"data": {"a": null, "c": "3"}}),
            json!({"data": {"b": "2", "c": "3"}}),
        ),
    ]
}

#[test]
fn strategic_patches_give_their_golden_results() {
    for (what, group, kind, object, patch, result) in golden() {
        assert_eq!(patched(group, kind, object, patch), result, "{what}");
    }
}

#[test]
fn bad_strategic_patches_fail_with_upstreams_texts() {
    let pod = json!({"spec": {"containers": [{"name": "a"}]}});
    let status = refused(pod.clone(), json!({"spec": {"containers": [{"image": "x"}]}}));
    assert_eq!(status.message, "map: map[image:x] does not contain declared merge key: name");
    let status = refused(pod.clone(), json!({"spec": {"$patch": "burn"}}));
    assert_eq!(status.message, "unknown patch type: burn in map: map[]");
    let status = refused(pod.clone(), json!({"spec": {"$setElementOrder/containers": "a"}}));
    assert_eq!((status.code, status.message.as_str()), (400, "invalid patch format of setElementOrder list"));
    let status =
        refused(pod, json!({"spec": {"$setElementOrder/containers": [], "containers": [{"name": "a"}]}}));
    assert!(status.message.starts_with("The order in patch list:"), "{}", status.message);
}

#[test]
fn json_and_merge_patches_apply_or_refuse() {
    let object = json!({"a": [1], "b": {"c": 1}});
    let result = json_of(
        &object,
        json!([{"op": "add", "path": "/a/-", "value": 2}, {"op": "remove", "path": "/b/c"}]),
    );
    assert_eq!(result, Ok(json!({"a": [1, 2], "b": {}})));
    let status = json_of(&object, json!([{"op": "remove", "path": "/none"}])).expect_err("absent");
    assert_eq!(status.code, 422);
    assert_eq!(status.message, "the server rejected our request due to an error in our request");
    assert_eq!(super::merge(object, br#"{"b":{"c":null,"d":2}}"#), Ok(json!({"a": [1], "b": {"d": 2}})));
    assert_eq!(super::merge(json!({}), b"[").expect_err("not JSON").code, 400);
}

fn json_of(object: &Value, patch: Value) -> Result<Value> {
    json(object.clone(), patch.to_string().as_bytes())
}

#[test]
fn copies_that_double_an_object_again_and_again_are_refused() {
    let object = json!({"a": {"text": "x".repeat(1000)}});
    let copies = |count: usize| {
        let one = |at| json!({"op": "copy", "from": "/a", "path": format!("/a/k{at}")});
        Value::Array((0..count).map(one).collect()).to_string()
    };
    assert_eq!(super::json(object.clone(), copies(40).as_bytes()).unwrap_err().code, 422);
    assert!(super::json(object, copies(5).as_bytes()).is_ok());
}

#[test]
fn a_test_for_null_holds_where_nothing_is() {
    let object = || serde_json::json!({"metadata": {"name": "a"}});
    let patch = |path: &str| {
        let test = serde_json::json!([{"op": "test", "path": path, "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a/b"]}]);
        super::json(object(), test.to_string().as_bytes())
    };
    assert_eq!(patch("/metadata/finalizers").unwrap()["metadata"]["finalizers"][0], "a/b");
    assert_eq!(patch("/metadata/name").unwrap_err().code, 422);
    assert_eq!(patch("/spec/nothing").unwrap_err().code, 422);
}
