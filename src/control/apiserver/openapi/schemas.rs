//! Definitions: the typed crate's schemas in upstream's form and with its extensions.

use k8s_openapi::api::{authentication::v1::TokenRequest, autoscaling::v1::Scale, policy::v1::Eviction};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::api::merge_keys::{self, Merge};
use crate::control::apiserver::registry::Resource;

const PLACE: &str = "#/components/schemas/";

/// The definitions' names of a row: the object's and its list's.
pub struct Names {
    pub object: String,
    pub list: String,
}

/// Everything the rows' kinds are made of, and each row's own definitions' names.
pub fn of(rows: &[&Resource]) -> (Value, Vec<Names>) {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings.transforms.clear();
        })
        .into_generator();
    let names: Vec<Names> = rows
        .iter()
        .map(|row| {
            let described = (row.schema)(&mut generator);
            let object = row.custom().map_or_else(|| name_of(&described), |custom| custom.definition());
            Names { list: format!("{object}List"), object }
        })
        .collect();
    add_shared(&mut generator, rows);
    let mut all = generator.take_definitions(false);
    all.values_mut().for_each(upstream_form);
    for (row, names) in rows.iter().zip(&names) {
        if let Some(custom) = row.custom() {
            all.insert(names.object.clone(), custom.published());
            all.insert(names.list.clone(), list(row, &names.object));
            continue;
        }
        if let Some(own) = all.get_mut(&names.object) {
            of_kind(own, row.group, row.version, row.kind);
        }
        if row.stored() {
            all.insert(names.list.clone(), list(row, &names.object));
        }
    }
    super::enums::add(&mut all);
    super::atomic::add(&mut all);
    for of in merge_keys::TYPES {
        if let Some(own) = all.get_mut(&format!("io.k8s.{}", of.definition)) {
            merging(own, of.fields);
        }
    }
    super::atomic::keys(&mut all);
    (Value::Object(all), names)
}

/// What paths speak of beside the rows' own kinds.
fn add_shared(generator: &mut SchemaGenerator, rows: &[&Resource]) {
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<Status>();
    generator.subschema_for::<ListMeta>();
    for subresource in rows.iter().flat_map(|row| row.subresources) {
        match subresource.kind {
            "Scale" => drop(generator.subschema_for::<Scale>()),
            "Eviction" => drop(generator.subschema_for::<Eviction>()),
            "TokenRequest" => drop(generator.subschema_for::<TokenRequest>()),
            _ => {}
        }
    }
}

fn name_of(reference: &schemars::Schema) -> String {
    let reference = reference.get("$ref").and_then(Value::as_str).unwrap_or_default();
    reference.trim_start_matches(PLACE).to_owned()
}

pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("{PLACE}{name}")})
}

/// Marks the definition of a kind. Upstream requires no metadata; the typed crate does.
fn of_kind(schema: &mut Value, group: &str, version: &str, kind: &str) {
    let Some(fields) = schema.as_object_mut() else { return };
    if let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "metadata");
        if required.is_empty() {
            fields.remove("required");
        }
    }
    let kinds = json!([{"group": group, "kind": kind, "version": version}]);
    fields.insert("x-kubernetes-group-version-kind".into(), kinds);
}

fn list(row: &Resource, object: &str) -> Value {
    const RESOURCES: &str =
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
    const KINDS: &str =
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
    let text = |description: String| json!({"description": description, "type": "string"});
    let version = "APIVersion defines the versioned schema of this representation of an object. Servers should convert \
        recognized schemas to the latest internal value, and may reject unrecognized values. More info: ";
    let kind = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
        from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: ";
    let list_meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
    json!({
        "description": format!("{} is a list of {}.", row.list_kind, row.plural),
        "type": "object",
        "properties": {
            "apiVersion": text(format!("{version}{RESOURCES}")),
            "kind": text(format!("{kind}{KINDS}")),
            "metadata": {"description": "Standard list metadata.", "allOf": [reference(list_meta)]},
            "items": {"description": format!("List of {}.", row.plural), "type": "array", "items": {"allOf": [reference(object)]}},
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [{"group": row.group, "kind": row.list_kind, "version": row.version}],
    })
}

/// References with anything beside them become `allOf`; numbers-or-texts become `oneOf`.
fn upstream_form(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if fields.len() > 1
        && let Some(reference) = fields.remove("$ref")
    {
        fields.insert("allOf".into(), json!([{"$ref": reference}]));
    }
    if fields.remove("x-kubernetes-int-or-string").is_some() {
        let quantity = fields
            .get("description")
            .and_then(Value::as_str)
            .is_some_and(|description| description.starts_with("Quantity"));
        let other = if quantity { "number" } else { "integer" };
        fields.insert("oneOf".into(), json!([{"type": "string"}, {"type": other}]));
        if !quantity {
            fields.insert("format".into(), json!("int-or-string"));
        }
    }
    for (_, inner) in fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        upstream_form(inner);
    }
    for field in ["items", "additionalProperties"] {
        fields.get_mut(field).into_iter().for_each(upstream_form);
    }
}

/// `x-kubernetes-patch-*`, and the list types that follow from them.
fn merging(schema: &mut Value, rules: &[merge_keys::Field]) {
    for rule in rules {
        let Some(field) = schema["properties"].get_mut(rule.name).and_then(Value::as_object_mut) else {
            continue;
        };
        extend(field, rule.name, rule.merge);
    }
}

fn extend(field: &mut Map<String, Value>, name: &str, merge: Merge) {
    if let Some(strategy) = merge.strategy() {
        field.insert("x-kubernetes-patch-strategy".into(), json!(strategy));
    }
    if let Some(key) = merge.key() {
        field.insert("x-kubernetes-patch-merge-key".into(), json!(key));
        // A container port is one with its protocol, as is a service's port.
        let keys = if name == "ports" { json!([key, "protocol"]) } else { json!([key]) };
        field.insert("x-kubernetes-list-map-keys".into(), keys);
        field.insert("x-kubernetes-list-type".into(), json!("map"));
    }
    if merge == Merge::Set {
        field.insert("x-kubernetes-list-type".into(), json!("set"));
    }
}
