//! ValidatingAdmissionPolicy: rules of a cluster's own, in CEL (`apiserver/pkg/admission/plugin/policy`).
//!
//! A policy says what must hold, a binding where and what happens if it does not: refuse, warn, note down.
//! Left out on purpose: cost limits, `authorizer`, and type checking into the policy's status.

use serde_json::{Map, Value, json};

use super::webhooks::{ask, matching};
use super::{Attributes, Context, list};
use crate::api::selector::LabelSelector;
use crate::api::status::{Result, Status};
use crate::control::apiserver::cel::{self, Expression};
use crate::control::apiserver::{lookup, registry};

const GROUP: &str = "admissionregistration.k8s.io";
/// What expressions may speak of.
pub const KNOWN: [&str; 6] = ["object", "oldObject", "request", "params", "namespaceObject", "variables"];

/// All objects of a kind.
fn all(context: &Context, plural: &str) -> Vec<Value> {
    let Some(row) = registry::by_name(GROUP, plural) else { return Vec::new() };
    let Ok(page) = context.store.list(&row.bucket, "", None, None, None) else { return Vec::new() };
    page.entries.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
}

pub(super) fn validate(context: &Context, write: &mut Attributes) -> Result<()> {
    if write.group == GROUP {
        return Ok(());
    }
    let bindings = all(context, "validatingadmissionpolicybindings");
    if bindings.is_empty() {
        return Ok(());
    }
    for policy in all(context, "validatingadmissionpolicies") {
        if !concerns(context, &policy["spec"]["matchConstraints"], write) {
            continue;
        }
        let own =
            bindings.iter().filter(|binding| binding["spec"]["policyName"] == policy["metadata"]["name"]);
        for binding in own {
            let place = &binding["spec"]["matchResources"];
            if place.is_null() || concerns_bound(context, place, write) {
                bound(context, &policy, binding, write)?;
            }
        }
    }
    Ok(())
}

/// `MatchResources`: rules, exceptions, selectors.
fn concerns(context: &Context, matching: &Value, write: &Attributes) -> bool {
    list(&matching["resourceRules"]).iter().any(|rule| covers(rule, write))
        && !list(&matching["excludeResourceRules"]).iter().any(|rule| covers(rule, write))
        && matching::namespace_is_selected(context, &matching["namespaceSelector"], write)
        && matching::object_is_selected(&matching["objectSelector"], write)
}

/// The same for a binding, which need not name resources.
fn concerns_bound(context: &Context, matching: &Value, write: &Attributes) -> bool {
    let rules = list(&matching["resourceRules"]);
    (rules.is_empty() || rules.iter().any(|rule| covers(rule, write)))
        && !list(&matching["excludeResourceRules"]).iter().any(|rule| covers(rule, write))
        && matching::namespace_is_selected(context, &matching["namespaceSelector"], write)
        && matching::object_is_selected(&matching["objectSelector"], write)
}

fn covers(rule: &Value, write: &Attributes) -> bool {
    let names = list(&rule["resourceNames"]);
    matching::covers(rule, write)
        && (names.is_empty() || names.iter().any(|name| *name == write.name.as_str()))
}

/// One policy by one binding, for each of its parameters.
fn bound(context: &Context, policy: &Value, binding: &Value, write: &mut Attributes) -> Result<()> {
    let failing = policy["spec"]["failurePolicy"] != "Ignore";
    let parameters = match parameters(context, policy, binding, write) {
        Ok(parameters) => parameters,
        Err(why) if failing => return refuse(policy, binding, write, &[(why, "Invalid")]),
        Err(_) => return Ok(()),
    };
    for parameter in parameters {
        let broken = judge(context, policy, &parameter, write, failing);
        if !broken.is_empty() {
            refuse(policy, binding, write, &broken)?;
        }
    }
    Ok(())
}

/// What a binding's `paramRef` names; one null for a policy without parameters.
fn parameters(
    context: &Context,
    policy: &Value,
    binding: &Value,
    write: &Attributes,
) -> std::result::Result<Vec<Value>, String> {
    let (kind, reference) = (&policy["spec"]["paramKind"], &binding["spec"]["paramRef"]);
    if kind.is_null() || reference.is_null() {
        return Ok(vec![Value::Null]);
    }
    let version = lookup::text(kind, "/apiVersion");
    let row =
        registry::every().into_iter().find(|row| row.api_version() == version && kind["kind"] == row.kind);
    let row = row.ok_or_else(|| {
        format!(
            "failed to find resource referenced by paramKind: '{version}, Kind={}'",
            lookup::text(kind, "/kind")
        )
    })?;
    let namespace = match reference["namespace"].as_str() {
        _ if !row.namespaced => "",
        Some(namespace) => namespace,
        None => write.namespace.as_str(),
    };
    let found: Vec<Value> = match reference["name"].as_str() {
        Some(name) => {
            let entry = context.store.get(&row.bucket, &row.key(namespace, name));
            entry.iter().filter_map(|entry| serde_json::from_slice(&entry.value).ok()).collect()
        }
        None => {
            let selector =
                LabelSelector::from_object(reference.get("selector")).map_err(|error| error.to_string())?;
            let prefix = if row.namespaced { format!("{namespace}/") } else { String::new() };
            let page = context
                .store
                .list(&row.bucket, &prefix, None, None, None)
                .map_err(|error| error.to_string())?;
            let objects =
                page.entries.iter().filter_map(|entry| serde_json::from_slice::<Value>(&entry.value).ok());
            objects.filter(|object| selector.matches(&object["metadata"]["labels"])).collect()
        }
    };
    match found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        true => Err("no params found for policy binding with `Deny` parameterNotFoundAction".into()),
        false => Ok(found),
    }
}

/// What of a policy a write breaks: texts and reasons.
fn judge(
    context: &Context,
    policy: &Value,
    parameter: &Value,
    write: &Attributes,
    failing: bool,
) -> Vec<(String, &'static str)> {
    let spec = &policy["spec"];
    let request = ask::request(write, "");
    let namespace =
        lookup::object(&context.store, "", "namespaces", "", &write.namespace).unwrap_or_default();
    let mut values: Vec<(&str, ::cel::Value)> = vec![
        ("object", cel::exactly(&json!(write.object))),
        ("oldObject", cel::exactly(&json!(write.old))),
        ("request", cel::exactly(&request)),
        ("params", cel::exactly(parameter)),
        ("namespaceObject", cel::exactly(&namespace)),
    ];
    let evaluate = |source: &str, values: &[(&str, ::cel::Value)]| {
        let outcome =
            Expression::compile_for(source, &KNOWN).and_then(|expression| expression.value_of(values));
        outcome.map_err(|why| format!("expression '{source}' resulted in error: {why}"))
    };
    let mut broken = Vec::new();
    for condition in list(&spec["matchConditions"]) {
        match evaluate(lookup::text(condition, "/expression"), &values) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => return Vec::new(),
            Err(why) => broken.extend(failing.then_some((why, "Invalid"))),
        }
    }
    if !broken.is_empty() {
        return broken;
    }
    let mut variables = Map::new();
    for variable in list(&spec["variables"]) {
        let with = [&values[..], &[("variables", cel::exactly(&Value::Object(variables.clone())))]].concat();
        // One that fails is missed by whoever uses it.
        if let Ok(value) = evaluate(lookup::text(variable, "/expression"), &with) {
            variables.insert(lookup::text(variable, "/name").to_owned(), value);
        }
    }
    values.push(("variables", cel::exactly(&Value::Object(variables))));
    for validation in list(&spec["validations"]) {
        let source = lookup::text(validation, "/expression");
        match evaluate(source, &values) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => {
                let said = validation["messageExpression"].as_str().and_then(|source| {
                    evaluate(source, &values)
                        .ok()?
                        .as_str()
                        .map(str::to_owned)
                        .filter(|text| !text.trim().is_empty())
                });
                let own = validation["message"].as_str().map(str::to_owned);
                let text = said.or(own).unwrap_or_else(|| format!("failed expression: {source}"));
                broken.push((text.trim().to_owned(), reason(&validation["reason"])));
            }
            Err(why) => broken.extend(failing.then_some((why, "Invalid"))),
        }
    }
    broken
}

fn reason(value: &Value) -> &'static str {
    match value.as_str() {
        Some("Unauthorized") => "Unauthorized",
        Some("Forbidden") => "Forbidden",
        Some("RequestEntityTooLarge") => "RequestEntityTooLarge",
        _ => "Invalid",
    }
}

/// What a binding does about what is broken.
fn refuse(
    policy: &Value,
    binding: &Value,
    write: &mut Attributes,
    broken: &[(String, &'static str)],
) -> Result<()> {
    let (own, by) = (lookup::text(policy, "/metadata/name"), lookup::text(binding, "/metadata/name"));
    let does = |action: &str| list(&binding["spec"]["validationActions"]).iter().any(|one| *one == action);
    if does("Warn") {
        let texts = broken.iter().map(|(text, _)| {
            format!("Validation failed for ValidatingAdmissionPolicy '{own}' with binding '{by}': {text}")
        });
        write.warnings.extend(texts);
    }
    if does("Audit") {
        let failures: Vec<Value> = broken
            .iter()
            .enumerate()
            .map(|(index, (text, _))| {
                json!({"message": text, "policy": own, "binding": by, "expressionIndex": index,
                    "validationActions": binding["spec"]["validationActions"]})
            })
            .collect();
        write.annotate(
            "validation.policy.admission.k8s.io/validation_failure",
            &Value::from(failures).to_string(),
        );
    }
    let (Some((text, reason)), true) = (broken.first(), does("Deny")) else { return Ok(()) };
    let message = format!("ValidatingAdmissionPolicy '{own}' with binding '{by}' denied request: {text}");
    let mut status = write.forbidden(&message);
    status.reason = reason;
    status.code = match *reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    let details = status.details.get_or_insert_with(|| json!({}));
    details["causes"] = json!([{"message": message}]);
    Err::<(), Status>(status)
}
