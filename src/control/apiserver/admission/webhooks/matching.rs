//! Whether a webhook wants to see a write: rules, selectors, conditions.

use serde_json::Value;

use super::super::{Attributes, Context, Operation, list};
use crate::api::selector::LabelSelector;
use crate::control::apiserver::cel::{self, Expression};
use crate::control::apiserver::lookup;

/// Rules and selectors.
pub fn concerns(context: &Context, hook: &Value, write: &Attributes) -> bool {
    list(&hook["rules"]).iter().any(|rule| covers(rule, write))
        && namespace_is_selected(context, &hook["namespaceSelector"], write)
        && object_is_selected(&hook["objectSelector"], write)
}

/// Whether a rule (`RuleWithOperations`) is about this write.
pub fn covers(rule: &Value, write: &Attributes) -> bool {
    let has = |field: &str, value: &str| {
        list(&rule[field]).iter().any(|own| own == "*" || own.as_str() == Some(value))
    };
    let operation = match write.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    };
    // A namespace is no object in a namespace, though its requests carry its own name.
    let namespaced =
        !(write.namespace.is_empty() || write.group.is_empty() && write.resource == "namespaces");
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => namespaced,
        Some("Cluster") => !namespaced,
        _ => true,
    };
    let resource = list(&rule["resources"]).iter().filter_map(Value::as_str).any(|own| {
        let (resource, subresource) = own.split_once('/').unwrap_or((own, ""));
        let below = match own.contains('/') {
            true => subresource == "*" || subresource == write.subresource,
            false => write.subresource.is_empty(),
        };
        (resource == "*" || resource == write.resource) && below
    });
    scope
        && has("operations", operation)
        && has("apiGroups", &write.group)
        && has("apiVersions", &write.version)
        && resource
}

/// Whether the write's namespace has the labels; what is in none is always selected.
pub fn namespace_is_selected(context: &Context, selector: &Value, write: &Attributes) -> bool {
    let Ok(selector) = LabelSelector::from_object(Some(selector).filter(|own| own.is_object())) else {
        return true;
    };
    if !selector_matters(&selector) {
        return true;
    }
    let own = write.group.is_empty() && write.resource == "namespaces" && write.subresource.is_empty();
    let labels = match own {
        true => {
            write.object.as_ref().or(write.old.as_ref()).map(|object| object["metadata"]["labels"].clone())
        }
        false if write.namespace.is_empty() => return true,
        false => lookup::object(&context.store, "", "namespaces", "", &write.namespace)
            .map(|namespace| namespace["metadata"]["labels"].clone()),
    };
    selector.matches(&labels.unwrap_or_default())
}

/// Whether the object has the labels, as it was or as it will be.
pub fn object_is_selected(selector: &Value, write: &Attributes) -> bool {
    let Ok(selector) = LabelSelector::from_object(Some(selector).filter(|own| own.is_object())) else {
        return true;
    };
    if !selector_matters(&selector) {
        return true;
    }
    [&write.object, &write.old]
        .into_iter()
        .flatten()
        .any(|object| selector.matches(&object["metadata"]["labels"]))
}

fn selector_matters(selector: &LabelSelector) -> bool {
    !selector.is_everything() && !selector.to_string().is_empty()
}

/// Whether all match conditions hold.
///
/// # Errors
/// What went wrong with one, when no other said no.
pub fn conditions(hook: &Value, write: &Attributes, request: &Value) -> Result<bool, String> {
    let own = list(&hook["matchConditions"]);
    if own.is_empty() {
        return Ok(true);
    }
    let values = super::variables(write, request);
    let variables: Vec<(&str, ::cel::Value)> =
        values.iter().map(|(name, value)| (*name, cel::exactly(value))).collect();
    let mut failure = None;
    for condition in own {
        let source = condition["expression"].as_str().unwrap_or_default();
        let outcome = Expression::compile_for(source, &["object", "oldObject", "request"])
            .and_then(|expression| expression.value_of(&variables));
        match outcome {
            Ok(Value::Bool(true)) => {}
            Ok(_) => return Ok(false),
            Err(why) => {
                failure = Some(format!("expression '{source}' resulted in error: {why}"));
            }
        }
    }
    failure.map_or(Ok(true), Err)
}
