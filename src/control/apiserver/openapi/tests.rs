use serde_json::Value;

use super::*;

fn parsed(path: &str) -> Value {
    serde_json::from_slice(&v3()[path].text()).unwrap()
}

#[test]
fn every_version_has_a_document_whose_references_exist() {
    for (path, document) in v3() {
        let text = String::from_utf8(document.text().to_vec()).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{path}: {name}");
        }
    }
}

#[test]
fn the_pod_is_described_under_upstreams_names_and_extensions() {
    let core = parsed("api/v1");
    let schemas = &core["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "kind": "Pod", "version": "v1"}])
    );
    assert!(pod["required"].is_null());
    assert_eq!(
        pod["properties"]["spec"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.PodSpec"
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
}

#[test]
fn kubectl_finds_field_validation_and_the_strategic_patch() {
    let apps = parsed("apis/apps/v1");
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert!(
        patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "fieldValidation" && one["in"] == "query")
    );
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
}

#[test]
fn merge_keys_name_fields_that_exist() {
    let core = parsed("api/v1");
    for of in crate::api::merge_keys::TYPES {
        let schema = &core["components"]["schemas"][format!("io.k8s.{}", of.definition)];
        for field in of.fields.iter().filter(|_| schema.is_object()) {
            assert!(schema["properties"][field.name].is_object(), "{} {}", of.definition, field.name);
        }
    }
}

#[test]
fn the_second_version_is_one_document_of_the_same() {
    let document: Value = serde_json::from_slice(&v2().text()).unwrap();
    assert_eq!(document["swagger"], "2.0");
    let text = document.to_string();
    assert!(!text.contains("#/components/") && !text.contains("\"allOf\""));
    assert_eq!(
        document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"],
        "#/definitions/io.k8s.api.core.v1.PodSpec"
    );
}

#[test]
fn enums_are_of_fields_that_exist() {
    let documents: Vec<Value> = v3().keys().map(|path| parsed(path)).collect();
    for (definition, field) in enums::names() {
        let known = |document: &Value| {
            document["components"]["schemas"][&definition]["properties"][field]["enum"].is_array()
        };
        assert!(documents.iter().any(known), "{definition} {field}");
    }
}
