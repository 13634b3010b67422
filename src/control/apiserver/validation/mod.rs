//! What makes an object invalid, with upstream's field paths and texts
//! (`k8s.io/kubernetes/pkg/apis/*/validation`).
//!
//! The rules people actually meet; exotic volume sources and the like pass unchecked.

pub mod access;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod cluster;
pub mod config;
pub mod container;
pub mod cron;
pub mod disruption;
pub mod dns;
pub mod ephemeral;
pub mod event;
pub mod flow;
pub mod ingress;
pub mod metadata;
pub mod network;
pub mod pod;
pub mod policy;
pub mod quota;
pub mod service;
pub mod stateful;
pub mod storage;
pub mod volumes;
pub mod workload;

use serde_json::Value;

use crate::api::status::Cause;

const IMMUTABLE: &str = "field is immutable";

/// The texts of a list of reasons, as causes at one field.
fn invalid_all(field: &str, value: &Value, reasons: Vec<String>) -> impl Iterator<Item = Cause> {
    reasons.into_iter().map(move |why| Cause::invalid(field, value, &why))
}

fn duplicate(field: String, value: &Value) -> Cause {
    Cause { field, reason: "FieldValueDuplicate", message: format!("Duplicate value: {value}") }
}

fn not_found(field: String, value: &Value) -> Cause {
    Cause { field, reason: "FieldValueNotFound", message: format!("Not found: {value}") }
}

fn too_long(field: String, most: usize) -> Cause {
    let message = format!("Too long: may not be more than {most} bytes");
    Cause { field, reason: "FieldValueTooLong", message }
}

/// Refuses a list that is longer than this.
fn too_many(causes: &mut Vec<Cause>, value: &Value, field: &str, path: &str, most: usize) {
    let length = value[field].as_array().map_or(0, Vec::len);
    if length > most {
        let message = format!("Too many: {length}: must have at most {most} items");
        causes.push(Cause { field: join(path, field), reason: "FieldValueTooMany", message });
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The items of a list, each with its path.
fn each<'a>(value: &'a Value, field: &str, path: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let (list, base) = (value[field].as_array().into_iter().flatten(), join(path, field));
    list.enumerate().map(move |(index, item)| (format!("{base}[{index}]"), item))
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// Refuses a set field below zero.
fn not_negative(causes: &mut Vec<Cause>, value: &Value, field: &str, path: &str) {
    if value[field].as_i64().is_some_and(|number| number < 0) {
        causes.push(Cause::invalid(join(path, field), &value[field], "must be greater than or equal to 0"));
    }
}

/// A number, or a percentage from 0 to 100 (`validation.ValidatePositiveIntOrPercent`, `IsNotMoreThan100Percent`).
fn share(causes: &mut Vec<Cause>, value: &Value, path: &str) {
    let percent = |text: &str| text.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok());
    match (value.as_i64(), value.as_str()) {
        (Some(..0), _) => {
            causes.push(Cause::invalid(path, value, "must be greater than or equal to 0"));
        }
        (_, Some(text)) => match percent(text) {
            None => causes.push(Cause::invalid(path, value, NO_PERCENT)),
            Some(101..) => causes.push(Cause::invalid(path, value, "must not be greater than 100%")),
            Some(_) => {}
        },
        _ => {}
    }
}

const NO_PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  \
    or '93%', regex used for validation is '[0-9]+%')";

/// Refuses a word outside the list; empty or absent passes.
fn one_of(causes: &mut Vec<Cause>, value: &Value, field: &str, path: &str, supported: &[&str]) {
    if !text(value, field).is_empty() && !supported.contains(&text(value, field)) {
        causes.push(Cause::unsupported(join(path, field), &value[field], supported));
    }
}

/// Requires a text.
fn required(causes: &mut Vec<Cause>, value: &Value, field: &str, path: &str) -> bool {
    let missing = text(value, field).is_empty();
    if missing {
        causes.push(Cause::required(join(path, field), ""));
    }
    !missing
}

/// Refuses a change of a field.
fn immutable(causes: &mut Vec<Cause>, new: &Value, old: &Value, field: &str, path: &str) {
    if new[field] != old[field] {
        causes.push(Cause::invalid(join(path, field), &new[field], IMMUTABLE));
    }
}

/// Refuses a port outside 1 to 65535.
fn port_number(causes: &mut Vec<Cause>, port: &Value, path: String) {
    if !port.as_i64().is_some_and(|number| (1..=65535).contains(&number)) {
        causes.push(Cause::invalid(path, port, "must be between 1 and 65535, inclusive"));
    }
}

/// A port by number or by name.
fn port_number_or_name(causes: &mut Vec<Cause>, port: &Value, path: String) {
    match port.as_str() {
        Some(name) => causes.extend(invalid_all(&path, port, crate::api::names::port_name(name))),
        None => port_number(causes, port, path),
    }
}

#[cfg(test)]
mod tests;
