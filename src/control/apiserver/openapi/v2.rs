//! The version 2 document (swagger), rewritten from the version 3 ones.
//!
//! [`super::gnostic`] writes it as protobuf.

use serde_json::{Map, Value, json};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

pub fn document(versions: impl Iterator<Item = Value>) -> Value {
    let (mut definitions, mut paths) = (Map::new(), Map::new());
    for mut version in versions {
        if let Value::Object(schemas) = version["components"]["schemas"].take() {
            definitions.extend(schemas);
        }
        if let Value::Object(own) = version["paths"].take() {
            paths.extend(own);
        }
    }
    paths.values_mut().for_each(path);
    let mut definitions = Value::Object(definitions);
    rewrite(&mut definitions);
    let mut paths = Value::Object(paths);
    rewrite(&mut paths);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": crate::control::apiserver::health::VERSION},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// Bodies are parameters, and answers have their schema at the top.
fn path(item: &mut Value) {
    parameters(&mut item["parameters"]);
    for method in METHODS {
        let Some(operation) = item.get_mut(method).and_then(Value::as_object_mut) else { continue };
        operation.entry("parameters").and_modify(parameters);
        if let Some(body) = operation.remove("requestBody") {
            let content = body["content"].as_object().into_iter().flatten();
            let (kinds, schemas): (Vec<&String>, Vec<&Value>) =
                content.map(|(kind, of)| (kind, &of["schema"])).unzip();
            let parameter = json!({"name": "body", "in": "body", "required": method != "delete", "schema": schemas.first()});
            if let Some(list) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
                list.push(parameter);
            }
            operation.insert("consumes".into(), json!(kinds));
        }
        operation.insert("produces".into(), json!(["application/json", "application/yaml"]));
        for (_, answer) in operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flatten()
        {
            let schema = answer["content"]["application/json"]["schema"].take();
            let Some(answer) = answer.as_object_mut() else { continue };
            answer.remove("content");
            if !schema.is_null() {
                answer.insert("schema".into(), schema);
            }
        }
    }
    if item["parameters"].is_null()
        && let Some(item) = item.as_object_mut()
    {
        item.remove("parameters");
    }
}

/// A parameter's type stands beside its name.
fn parameters(list: &mut Value) {
    for parameter in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(Value::Object(schema)) = parameter.remove("schema") {
            parameter.extend(schema);
        }
    }
}

/// Other places for definitions; `allOf` of one and `oneOf` do not exist here.
fn rewrite(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Array(mut parts)) = fields.remove("allOf")
                && let Some(Value::Object(part)) = parts.pop()
            {
                fields.extend(part);
            }
            if fields.remove("oneOf").is_some() {
                fields.insert("type".into(), json!("string"));
            }
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                *reference = reference.replace("#/components/schemas/", "#/definitions/");
            }
            fields.values_mut().for_each(rewrite);
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        _ => {}
    }
}
