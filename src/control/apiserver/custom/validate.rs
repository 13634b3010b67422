//! Validation by a schema, with the texts of `k8s.io/kube-openapi/pkg/validation`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex::Regex;
use serde_json::Value;

use crate::api::status::Cause;

/// What is wrong with a whole object.
pub fn check(schema: &Value, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    value(schema, object, "", &mut causes);
    causes
}

fn push(causes: &mut Vec<Cause>, path: &str, reason: &'static str, message: String) {
    causes.push(Cause {
        field: if path.is_empty() { "<nil>".into() } else { path.to_owned() },
        reason,
        message,
    });
}

fn wrong(causes: &mut Vec<Cause>, path: &str, value: &Value, why: &str) {
    push(causes, path, "FieldValueInvalid", format!("Invalid value: {value}: {path} in body {why}"));
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|n| n.fract() != 0.0) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(wanted: &str, value: &Value) -> bool {
    let own = kind_of(value);
    wanted == own || (wanted == "number" && own == "integer")
}

fn value(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && (schema["nullable"] == true || schema.get("type").is_none()) {
        return;
    }
    let either = schema["x-kubernetes-int-or-string"] == true;
    let wanted = schema["type"].as_str().unwrap_or_default();
    let typed = match either {
        true => matches!(kind_of(value), "integer" | "string"),
        false => wanted.is_empty() || has_type(wanted, value),
    };
    if !typed {
        let (wanted, own) = (if either { "integer,string" } else { wanted }, kind_of(value));
        let why = format!("Invalid value: {own:?}: {path} in body must be of type {wanted}: {own:?}");
        return push(causes, path, "FieldValueTypeInvalid", why);
    }
    if let Some(list) = schema["enum"].as_array().filter(|list| !list.contains(value)) {
        let texts: Vec<String> = list
            .iter()
            .map(|one| match one {
                Value::String(text) => format!("{text:?}"),
                other => format!("\"{other}\""),
            })
            .collect();
        let why = format!("Unsupported value: {value}: supported values: {}", texts.join(", "));
        push(causes, path, "FieldValueNotSupported", why);
    }
    match value {
        Value::String(text) => string(schema, text, value, path, causes),
        Value::Number(_) => number(schema, value, path, causes),
        Value::Array(list) => array(schema, list, value, path, causes),
        Value::Object(_) => object(schema, value, path, causes),
        _ => {}
    }
    junctors(schema, value, path, causes);
}

fn count(schema: &Value, field: &str) -> Option<usize> {
    schema[field].as_u64().map(|number| number as usize)
}

fn string(schema: &Value, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count();
    if let Some(most) = count(schema, "maxLength").filter(|most| length > *most) {
        push(causes, path, "FieldValueTooLong", format!("Too long: may not be more than {most} bytes"));
    }
    if let Some(least) = count(schema, "minLength").filter(|least| length < *least) {
        wrong(causes, path, value, &format!("should be at least {least} chars long"));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !compiled(pattern).is_some_and(|regex| regex.is_match(text))
    {
        wrong(causes, path, value, &format!("should match '{pattern}'"));
    }
    if let Some(format) = schema["format"].as_str().filter(|format| !is_of(format, text)) {
        wrong(causes, path, value, &format!("must be of type {format}: {value}"));
    }
}

/// The formats upstream checks; others pass.
fn is_of(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => uuid::Uuid::parse_str(text).is_ok(),
        "uri" => text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some()),
        "byte" => {
            use base64::Engine;
            base64::prelude::BASE64_STANDARD.decode(text).is_ok()
        }
        _ => true,
    }
}

/// A pattern, compiled once; none if it is none.
pub fn compiled(pattern: &str) -> Option<Arc<Regex>> {
    /// Patterns of definitions that are gone are forgotten in one go.
    const MOST: usize = 1000;
    static KNOWN: Mutex<Option<HashMap<String, Option<Arc<Regex>>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if known.len() > MOST {
        known.clear();
    }
    let make = || regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().ok().map(Arc::new);
    known.entry(pattern.to_owned()).or_insert_with(make).clone()
}

fn number(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let own = value.as_f64().unwrap_or_default();
    let bound = |field: &str| schema[field].as_f64();
    let short = |field: &str| schema[field].to_string().trim_end_matches(".0").to_owned();
    if let Some(most) = bound("maximum") {
        let exclusive = schema["exclusiveMaximum"] == true;
        if own > most || (exclusive && own == most) {
            let than = if exclusive { "less than" } else { "less than or equal to" };
            wrong(causes, path, value, &format!("should be {than} {}", short("maximum")));
        }
    }
    if let Some(least) = bound("minimum") {
        let exclusive = schema["exclusiveMinimum"] == true;
        if own < least || (exclusive && own == least) {
            let than = if exclusive { "greater than" } else { "greater than or equal to" };
            wrong(causes, path, value, &format!("should be {than} {}", short("minimum")));
        }
    }
    if let Some(of) = bound("multipleOf").filter(|of| *of > 0.0 && (own / of).fract().abs() > 1e-9) {
        wrong(causes, path, value, &format!("should be a multiple of {of}"));
    }
    let range = match schema["format"].as_str() {
        Some("int32") => value.as_i64().is_none_or(|number| i32::try_from(number).is_err()),
        _ => false,
    };
    if range {
        wrong(causes, path, value, &format!("must be of type int32: {}", Value::from(value.to_string())));
    }
}

fn too_many(causes: &mut Vec<Cause>, path: &str, own: usize, most: usize) {
    push(causes, path, "FieldValueTooMany", format!("Too many: {own}: must have at most {most} items"));
}

fn array(schema: &Value, list: &[Value], whole: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(most) = count(schema, "maxItems").filter(|most| list.len() > *most) {
        too_many(causes, path, list.len(), most);
    }
    if let Some(least) = count(schema, "minItems").filter(|least| list.len() < *least) {
        wrong(causes, path, whole, &format!("should have at least {least} items"));
    }
    for (index, item) in list.iter().enumerate() {
        value(&schema["items"], item, &format!("{path}[{index}]"), causes);
    }
    unique(schema, list, path, causes);
}

/// Sets and keyed lists say nothing twice (`schema/listtype`).
fn unique(schema: &Value, list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let key = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.to_string()),
        Some("map") => {
            let names = schema["x-kubernetes-list-map-keys"].as_array()?;
            let keys: serde_json::Map<String, Value> = names
                .iter()
                .filter_map(Value::as_str)
                .filter_map(|name| item.get(name).map(|value| (name.to_owned(), value.clone())))
                .collect();
            Some(Value::Object(keys).to_string())
        }
        _ => None,
    };
    let mut seen = std::collections::HashSet::new();
    for (index, item) in list.iter().enumerate() {
        let Some(key) = key(item) else { return };
        if !seen.insert(key.clone()) {
            push(
                causes,
                &format!("{path}[{index}]"),
                "FieldValueDuplicate",
                format!("Duplicate value: {key}"),
            );
        }
    }
}

fn object(schema: &Value, whole: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(fields) = whole.as_object() else { return };
    if let Some(most) = count(schema, "maxProperties").filter(|most| fields.len() > *most) {
        too_many(causes, path, fields.len(), most);
    }
    if let Some(least) = count(schema, "minProperties").filter(|least| fields.len() < *least) {
        wrong(causes, path, whole, &format!("should have at least {least} properties"));
    }
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            push(causes, &join(name), "FieldValueRequired", "Required value".into());
        }
    }
    for (name, inner) in fields {
        match schema["properties"].get(name) {
            // The server has looked at its metadata by itself.
            Some(of) if !(path.is_empty() && name == "metadata") => value(of, inner, &join(name), causes),
            None if schema["additionalProperties"].is_object() => {
                value(&schema["additionalProperties"], inner, &join(name), causes);
            }
            _ => {}
        }
    }
}

fn junctors(schema: &Value, own: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fails = |of: &Value| {
        let mut found = Vec::new();
        value(of, own, path, &mut found);
        found
    };
    let list = |field: &str| schema[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let refuse = |causes: &mut Vec<Cause>, why: &str| {
        push(causes, path, "FieldValueInvalid", format!("Invalid value: {own}: {path:?} {why}"));
    };
    if !list("anyOf").is_empty() && list("anyOf").iter().all(|of| !fails(of).is_empty()) {
        refuse(causes, "must validate at least one schema (anyOf)");
        causes.extend(list("anyOf").iter().map(fails).min_by_key(Vec::len).unwrap_or_default());
    }
    if !list("oneOf").is_empty() {
        match list("oneOf").iter().filter(|of| fails(of).is_empty()).count() {
            1 => {}
            0 => {
                refuse(causes, "must validate one and only one schema (oneOf). Found none valid");
                causes.extend(list("oneOf").iter().map(fails).min_by_key(Vec::len).unwrap_or_default());
            }
            many => refuse(
                causes,
                &format!("must validate one and only one schema (oneOf). Found {many} valid alternatives"),
            ),
        }
    }
    for of in list("allOf") {
        let found = fails(of);
        if !found.is_empty() {
            causes.extend(found);
            refuse(causes, "must validate all the schemas (allOf)");
        }
    }
    if schema["not"].is_object() && fails(&schema["not"]).is_empty() {
        refuse(causes, "must not validate the schema (not)");
    }
}
