//! Pruning and defaulting by a structural schema (`apiextensions-apiserver/pkg/apiserver/schema`).

use serde_json::{Map, Value};

const OPEN: &str = "x-kubernetes-preserve-unknown-fields";

/// Takes out the fields of a whole object that its schema does not know.
pub fn prune(schema: &Value, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let kept: Vec<(String, Value)> = ["apiVersion", "kind", "metadata"]
        .iter()
        .filter_map(|name| fields.remove(*name).map(|value| ((*name).to_owned(), value)))
        .collect();
    inside(schema, fields, false);
    fields.extend(kept);
}

fn walk(schema: &Value, value: &mut Value, open: bool) {
    match value {
        Value::Object(fields) => {
            let embedded = schema["x-kubernetes-embedded-resource"] == true;
            let names: &[&str] = if embedded { &["apiVersion", "kind", "metadata"] } else { &[] };
            let kept: Vec<(String, Value)> = names
                .iter()
                .filter_map(|name| fields.remove(*name).map(|value| ((*name).to_owned(), value)))
                .collect();
            inside(schema, fields, open);
            fields.extend(kept);
        }
        Value::Array(list) => {
            let open = open || schema[OPEN] == true;
            list.iter_mut().for_each(|item| walk(&schema["items"], item, open));
        }
        _ => {}
    }
}

/// `open`: this is inside something that keeps what nobody specified, and is not specified itself.
fn inside(schema: &Value, fields: &mut Map<String, Value>, open: bool) {
    let here = open && !schema.is_object() || schema[OPEN] == true;
    let rest = &schema["additionalProperties"];
    fields.retain(|name, _| {
        here || schema["properties"].get(name).is_some() || rest.is_object() || *rest == true
    });
    for (name, value) in fields.iter_mut() {
        match schema["properties"].get(name) {
            Some(of) => walk(of, value, false),
            None if rest.is_object() => walk(rest, value, false),
            None => {}
        }
    }
}

/// Fills in the defaults of a whole object.
pub fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, of) in schema["properties"].as_object().into_iter().flatten() {
                if let Some(default) = of.get("default") {
                    let missing = match fields.get(name) {
                        None => true,
                        Some(Value::Null) => of["nullable"] != true,
                        Some(_) => false,
                    };
                    if missing {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                if let Some(value) = fields.get_mut(name) {
                    self::default(of, value);
                }
            }
            let rest = &schema["additionalProperties"];
            if rest.is_object() {
                let known = |name: &str| schema["properties"].get(name).is_some();
                let others = fields.iter_mut().filter(|(name, _)| !known(name));
                others.for_each(|(_, value)| default(rest, value));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|item| default(&schema["items"], item)),
        _ => {}
    }
}
