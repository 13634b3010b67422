use serde_json::{Value, json};

use super::managers::{Managers, Operation, Who, conflict_text};
use super::shape::Shape;
use super::{Set, walk};

fn shape() -> Shape {
    let schema = json!({"type": "object", "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"},
        "metadata": {"type": "object", "properties": {
            "name": {"type": "string"}, "uid": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "managedFields": {"type": "array"},
        }},
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "selector": {"type": "object", "x-kubernetes-map-type": "atomic"},
            "args": {"type": "array", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"},
                    "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}},
        }},
    }});
    Shape::read(&schema, &serde_json::Map::new())
}

fn who(manager: &str, operation: Operation) -> Who {
    Who { manager: manager.into(), operation, api_version: "apps/v1".into(), subresource: String::new() }
}

fn applied(live: &Value, config: Value, manager: &str, force: bool) -> Result<Value, String> {
    let mut managers = Managers::read(live).unwrap();
    let object = managers
        .apply(&shape(), live, &config, who(manager, Operation::Apply), force, "2026-01-01T00:00:00Z")
        .map_err(|conflicts| conflict_text(&conflicts))?;
    let mut object = object;
    object["metadata"]["managedFields"] = managers.write();
    Ok(object)
}

#[test]
fn sets_read_back_from_their_json() {
    let value = json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {"replicas": 1, "ports": [{"port": 80, "name": "web"}], "args": ["a"]}});
    let set = walk::fields(shape().root(), &value);
    let text = set.encode();
    assert_eq!(
        text,
        json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {"f:replicas": {}, "f:args": {},
                "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:name": {}}}}})
    );
    assert_eq!(Set::decode(&text).unwrap(), set);
    assert!(set.paths().contains(&".spec.ports[port=80,protocol=\"TCP\"].name".to_owned()));
    assert!(Set::decode(&json!({"x:y": {}})).is_none() && Set::decode(&json!({"k:{": {}})).is_none());
}

#[test]
fn a_field_that_another_set_is_a_conflict_until_forced() {
    let mut live = json!({"metadata": {"name": "a", "uid": "1"}, "spec": {"replicas": 1}});
    let mut managers = Managers::default();
    managers.update(&shape(), &json!({}), &live, who("kubectl", Operation::Update), "2026-01-01T00:00:00Z");
    live["metadata"]["managedFields"] = managers.write();
    let config = json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}});
    assert_eq!(
        applied(&live, config.clone(), "me", false).unwrap_err(),
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas"
    );
    let same = json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}});
    assert!(applied(&live, same, "me", false).is_ok());
    let forced = applied(&live, config, "me", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 2);
    let managers = forced["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!((managers.len(), managers[0]["operation"].as_str()), (1, Some("Apply")));
}

#[test]
fn what_an_applier_gives_up_goes_unless_another_wants_it() {
    let port = |port: i64| json!({"port": port});
    let config =
        json!({"metadata": {"labels": {"a": "1", "b": "1"}}, "spec": {"ports": [port(80), port(81)]}});
    let live = applied(&json!({"metadata": {}}), config, "me", false).unwrap();
    let other = json!({"metadata": {"labels": {"b": "1"}}, "spec": {"ports": [{"port": 81, "name": "x"}]}});
    let mut live = applied(&live, other, "other", false).unwrap();
    // A default of the server's, which nobody owns, goes with its item.
    live["spec"]["ports"][0]["protocol"] = json!("TCP");
    let less = json!({"metadata": {}, "spec": {"replicas": 3}});
    let after = applied(&live, less, "me", false).unwrap();
    assert_eq!(after["metadata"]["labels"], json!({"b": "1"}));
    assert_eq!(after["spec"], json!({"replicas": 3, "ports": [{"port": 81, "name": "x"}]}));
}

#[test]
fn an_update_takes_what_it_changed_and_an_applied_no_change_is_none() {
    let config = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 1}});
    let live = applied(&json!({"metadata": {}}), config.clone(), "me", false).unwrap();
    assert_eq!(applied(&live, config, "me", false).unwrap(), live);
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(5);
    let mut managers = Managers::read(&live).unwrap();
    managers.update(&shape(), &live, &new, who("scaler", Operation::Update), "2026-01-02T00:00:00Z");
    let list = managers.write();
    assert_eq!(list[0]["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
    assert_eq!(list[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn too_many_updaters_are_counted_as_one() {
    let mut managers = Managers::default();
    let mut old = json!({"metadata": {}});
    for number in 0..20 {
        let mut new = old.clone();
        new["metadata"]["labels"][format!("l{number}")] = json!("x");
        let now = format!("2026-01-01T00:00:{number:02}Z");
        managers.update(&shape(), &old, &new, who(&format!("m{number}"), Operation::Update), &now);
        old = new;
    }
    let list = managers.write();
    assert!(list.as_array().unwrap().len() <= 11, "{list}");
    assert!(list.to_string().contains("ancient-changes"));
}

#[test]
fn mistakes_of_an_applied_object_are_named() {
    let config = json!({"spec": {"replicaz": 1, "ports": [{"port": 1}, {"port": 1}, {}]}});
    let found = walk::mistakes(shape().root(), &config);
    assert!(found.contains(&".spec.replicaz: field not declared in schema".to_owned()), "{found:?}");
    assert!(
        found.iter().any(|one| one.starts_with(".spec.ports: duplicate entries for key [port=1")),
        "{found:?}"
    );
}
