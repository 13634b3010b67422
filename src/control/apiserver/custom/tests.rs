use serde_json::{Value, json};

use super::{definition, rules, schema, validate};

fn crontab() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["cronSpec"],
            "x-kubernetes-validations": [
                {"rule": "self.replicas <= self.most", "message": "replicas may not exceed most"},
                {"rule": "self.cronSpec == oldSelf.cronSpec"},
            ],
            "properties": {
                "cronSpec": {"type": "string", "pattern": "^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 10, "default": 1},
                "most": {"type": "integer", "default": 5},
                "size": {"x-kubernetes-int-or-string": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"closed": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }},
    }})
}

fn texts(object: &Value) -> Vec<String> {
    validate::check(&crontab(), object).iter().map(ToString::to_string).collect()
}

#[test]
fn what_the_schema_does_not_know_is_pruned_and_defaults_are_filled_in() {
    let mut object = json!({"apiVersion": "a/v1", "kind": "CronTab", "metadata": {"name": "x"}, "other": 1,
        "spec": {"cronSpec": "* * * * *", "x": 1, "labels": {"a": "b"},
            "free": {"y": {"z": 1}, "closed": {"a": "1", "b": 2}}}});
    schema::prune(&crontab(), &mut object);
    schema::default(&crontab(), &mut object);
    assert_eq!(
        object,
        json!({"apiVersion": "a/v1", "kind": "CronTab", "metadata": {"name": "x"},
            "spec": {"cronSpec": "* * * * *", "labels": {"a": "b"}, "replicas": 1, "most": 5,
                "free": {"y": {"z": 1}, "closed": {"a": "1"}}}})
    );
}

#[test]
fn mistakes_are_told_in_upstreams_words() {
    assert_eq!(texts(&json!({})), ["spec: Required value"]);
    assert_eq!(
        texts(&json!({"spec": {"cronSpec": "0 0", "replicas": 11, "size": true}})),
        [
            r#"spec.cronSpec: Invalid value: "0 0": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
            "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
            r#"spec.size: Invalid value: "boolean": spec.size in body must be of type integer,string: "boolean""#,
        ]
    );
    assert_eq!(
        texts(&json!({"spec": {"cronSpec": "* * * * *", "replicas": "3"}})),
        [
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#
        ]
    );
}

#[test]
fn rules_judge_an_object_and_a_change_of_one() {
    let object =
        |cron: &str, replicas: i64| json!({"spec": {"cronSpec": cron, "replicas": replicas, "most": 5}});
    let said = |new: &Value, old: Option<&Value>| {
        rules::check(&crontab(), new, old).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(said(&object("a", 5), None).is_empty());
    assert_eq!(
        said(&object("a", 6), None),
        [r#"spec: Invalid value: "object": replicas may not exceed most"#]
    );
    assert_eq!(
        said(&object("b", 1), Some(&object("a", 1))),
        [r#"spec: Invalid value: "object": failed rule: self.cronSpec == oldSelf.cronSpec"#]
    );
}

#[test]
fn definitions_that_cannot_work_are_refused() {
    let mut object = json!({"metadata": {"name": "crontabs.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": crontab()}}]}});
    (definition::STRATEGY.default)(&mut object);
    let texts = |object: &Value| {
        (definition::STRATEGY.validate)(object, None).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(&object), Vec::<String>::new());
    let properties = &mut object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    properties["bad"] = json!({"x-kubernetes-validations": [{"rule": "self.("}]});
    object["spec"]["versions"][0]["storage"] = json!(false);
    let found = texts(&object);
    assert!(found[0].contains("must have exactly one version marked as storage version"), "{found:?}");
    let path = "spec.versions[0].schema.openAPIV3Schema.properties[bad]";
    assert!(
        found[1].starts_with(&format!(
            "{path}.type: Required value: must not be empty for specified object fields"
        ))
    );
    assert!(
        found[2].starts_with(&format!("{path}.x-kubernetes-validations[0].rule: Invalid value")),
        "{found:?}"
    );
}
