//! `x-kubernetes-validations`: rules in CEL that an object, or a change of one, must hold to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::api::status::Cause;
use crate::control::apiserver::cel::{self, Expression};

const VARIABLES: [&str; 2] = ["self", "oldSelf"];

/// Every rule that a whole object breaks.
pub fn check(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, object, old, "", &mut causes);
    causes
}

fn walk(schema: &Value, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() {
        return;
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        causes.extend(apply(rule, schema, value, old, path));
    }
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let rest = &schema["additionalProperties"];
                let of = schema["properties"].get(name).or(Some(rest).filter(|rest| rest.is_object()));
                if let Some(of) = of {
                    walk(of, inner, old.and_then(|old| old.get(name)), &join(name), causes);
                }
            }
        }
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                let before = old.and_then(|old| same(schema, item, old));
                walk(&schema["items"], item, before, &format!("{path}[{index}]"), causes);
            }
        }
        _ => {}
    }
}

/// The item of the old list that this one was: only keyed lists tell.
fn same<'a>(schema: &Value, item: &Value, old: &'a Value) -> Option<&'a Value> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    let is =
        |other: &&Value| keys.iter().filter_map(Value::as_str).all(|key| other.get(key) == item.get(key));
    old.as_array()?.iter().find(is)
}

fn apply(rule: &Value, schema: &Value, value: &Value, old: Option<&Value>, path: &str) -> Option<Cause> {
    let source = rule["rule"].as_str().unwrap_or_default();
    // A rule about the change has nothing to say of what is new.
    if old.is_none() && source.contains("oldSelf") && rule["optionalOldSelf"] != true {
        return None;
    }
    let mut variables = vec![("self", typed(schema, value))];
    variables.extend(old.map(|old| ("oldSelf", typed(schema, old))));
    let kind = schema["type"].as_str().unwrap_or("object");
    let refuse = |why: String| {
        let field = match rule["fieldPath"].as_str() {
            Some(below) => format!("{path}{below}").trim_start_matches('.').to_owned(),
            None if path.is_empty() => "<nil>".to_owned(),
            None => path.to_owned(),
        };
        let (reason, message) = match rule["reason"].as_str() {
            Some("FieldValueRequired") => ("FieldValueRequired", format!("Required value: {why}")),
            Some("FieldValueForbidden") => ("FieldValueForbidden", format!("Forbidden: {why}")),
            Some("FieldValueDuplicate") => ("FieldValueDuplicate", format!("Duplicate value: {kind:?}")),
            _ => ("FieldValueInvalid", format!("Invalid value: {kind:?}: {why}")),
        };
        Some(Cause { field, reason, message })
    };
    let own = rule["message"].as_str().map(|text| text.trim().to_owned());
    let text = || own.clone().unwrap_or_else(|| format!("failed rule: {}", source.trim()));
    match compiled(source).and_then(|rule| rule.value_of(&variables)) {
        Ok(Value::Bool(true)) => None,
        Ok(_) => {
            let said = rule["messageExpression"].as_str().and_then(|source| {
                let said = compiled(source).and_then(|expression| expression.value_of(&variables)).ok()?;
                said.as_str().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
            });
            refuse(said.unwrap_or_else(text))
        }
        Err(error) => refuse(format!("{error} evaluating rule: {}", text())),
    }
}

/// A value as CEL has it by its schema: whole numbers are whole unless the schema says `number`.
fn typed(schema: &Value, value: &Value) -> ::cel::Value {
    match value {
        Value::Number(number) if schema["type"] == "number" => {
            ::cel::Value::Float(number.as_f64().unwrap_or_default())
        }
        Value::Array(list) => {
            list.iter().map(|item| typed(&schema["items"], item)).collect::<Vec<_>>().into()
        }
        Value::Object(fields) => {
            let of = |name: &str| match schema["properties"].get(name) {
                Some(of) => of.clone(),
                None => schema["additionalProperties"].clone(),
            };
            let pairs = fields.iter().map(|(name, value)| (name.clone(), typed(&of(name), value)));
            pairs.collect::<HashMap<_, _>>().into()
        }
        other => cel::exactly(other),
    }
}

/// A rule, compiled once.
pub fn compiled(source: &str) -> Result<Arc<Expression>, String> {
    /// Rules of definitions that are gone are forgotten in one go.
    const MOST: usize = 1000;
    type Known = HashMap<String, Result<Arc<Expression>, String>>;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    if known.len() > MOST {
        known.clear();
    }
    let make = || Expression::compile_for(source, &VARIABLES).map(Arc::new);
    known.entry(source.to_owned()).or_insert_with(make).clone()
}
