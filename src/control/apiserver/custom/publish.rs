//! A custom kind in the OpenAPI documents (`apiextensions-apiserver/pkg/controller/openapi/builder`).

use serde_json::{Map, Value, json};

use super::Version;

const META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

impl Version {
    /// Its definition: the schema with what every object has.
    pub fn published(&self) -> Value {
        let mut schema = self.schema.clone();
        unfold(&mut schema);
        let Some(fields) = schema.as_object_mut() else { return json!({"type": "object"}) };
        fields.insert("type".into(), json!("object"));
        let properties = fields.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        if let Some(properties) = properties.as_object_mut() {
            let version = "APIVersion defines the versioned schema of this representation of an object. Servers should \
                convert recognized schemas to the latest internal value, and may reject unrecognized values.";
            let kind = "Kind is a string value representing the REST resource this object represents. Servers may \
                infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase.";
            properties.insert("apiVersion".into(), json!({"type": "string", "description": version}));
            properties.insert("kind".into(), json!({"type": "string", "description": kind}));
            properties.insert(
                "metadata".into(),
                json!({"description": "Standard object's metadata.", "allOf": [{"$ref": META}]}),
            );
        }
        let kinds = json!([{"group": self.group, "kind": self.kind, "version": self.name}]);
        fields.insert("x-kubernetes-group-version-kind".into(), kinds);
        schema
    }
}

/// A number or a text is spelled out; defaults of objects stay.
fn unfold(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if fields.get("x-kubernetes-int-or-string") == Some(&json!(true)) && !fields.contains_key("anyOf") {
        fields.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
    for (_, inner) in fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        unfold(inner);
    }
    for field in ["items", "additionalProperties"] {
        fields.get_mut(field).into_iter().for_each(unfold);
    }
}

/// Without what version 2 of OpenAPI has no words for (`ToStructuralOpenAPIV2`): clients that read it would refuse
/// what the server takes.
pub fn plain(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    let either = fields.get("x-kubernetes-int-or-string") == Some(&json!(true));
    let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    let nullable = fields.remove("nullable") == Some(json!(true));
    for word in ["anyOf", "oneOf", "not", "default", "x-kubernetes-validations"] {
        fields.remove(word);
    }
    if fields.get("allOf").is_some_and(|parts| parts[0].get("$ref").is_none()) {
        fields.remove("allOf");
    }
    if either || nullable {
        fields.remove("type");
    }
    if (open || nullable) && !fields.contains_key("x-kubernetes-group-version-kind") {
        for word in ["properties", "items", "additionalProperties", "required"] {
            fields.remove(word);
        }
    }
    for (_, inner) in fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        plain(inner);
    }
    for field in ["items", "additionalProperties"] {
        fields.get_mut(field).into_iter().for_each(plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_leaves_out_what_it_cannot_say() {
        let mut schema = json!({"type": "object", "properties": {
            "either": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "none": {"type": "string", "nullable": true},
            "not": {"type": "string", "not": {"enum": ["a"]}}}});
        plain(&mut schema);
        assert_eq!(
            schema["properties"],
            json!({"either": {"x-kubernetes-int-or-string": true},
            "none": {}, "not": {"type": "string"}})
        );
    }
}
