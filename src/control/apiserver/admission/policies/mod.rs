//! Admission policies: rules of a cluster's own, in CEL (`apiserver/pkg/admission/plugin/policy`).
//!
//! A policy says what must hold or what is changed, a binding where, and with which parameters. Policies see no
//! policies, so that nobody locks everybody out.
//! Left out on purpose: cost limits, `authorizer`, and type checking into the policy's status.

pub mod mutating;
mod patching;
pub mod validating;

use serde_json::{Map, Value, json};

use super::webhooks::{ask, matching};
use super::{Attributes, Context, list};
use crate::api::selector::LabelSelector;
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

/// The policies of a kind that concern a write, each with one of its bindings that do.
fn concerning(context: &Context, policies: &str, bindings: &str, write: &Attributes) -> Vec<(Value, Value)> {
    if write.group == GROUP {
        return Vec::new();
    }
    let bindings = all(context, bindings);
    if bindings.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for policy in all(context, policies) {
        if !concerns(context, &policy["spec"]["matchConstraints"], write) {
            continue;
        }
        let own =
            bindings.iter().filter(|binding| binding["spec"]["policyName"] == policy["metadata"]["name"]);
        for binding in own {
            let place = &binding["spec"]["matchResources"];
            if place.is_null() || concerns_bound(context, place, write) {
                found.push((policy.clone(), binding.clone()));
            }
        }
    }
    found
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

/// What a policy's expressions speak of in one write, with one parameter.
struct Scene {
    values: Vec<(&'static str, ::cel::Value)>,
}

impl Scene {
    fn new(context: &Context, write: &Attributes, parameter: &Value) -> Self {
        let namespace =
            lookup::object(&context.store, "", "namespaces", "", &write.namespace).unwrap_or_default();
        Self {
            values: vec![
                ("object", cel::exactly(&json!(write.object))),
                ("oldObject", cel::exactly(&json!(write.old))),
                ("request", cel::exactly(&ask::request(write, ""))),
                ("params", cel::exactly(parameter)),
                ("namespaceObject", cel::exactly(&namespace)),
            ],
        }
    }

    fn evaluate(&self, source: &str) -> Result<Value, String> {
        let outcome =
            Expression::compile_for(source, &KNOWN).and_then(|expression| expression.value_of(&self.values));
        outcome.map_err(|why| format!("expression '{source}' resulted in error: {why}"))
    }

    /// Whether a policy's conditions hold: one that is false decides, else what went wrong does.
    fn holds(&self, spec: &Value) -> Result<bool, Vec<String>> {
        let mut wrong = Vec::new();
        for condition in list(&spec["matchConditions"]) {
            match self.evaluate(lookup::text(condition, "/expression")) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => return Ok(false),
                Err(why) => wrong.push(why),
            }
        }
        if wrong.is_empty() { Ok(true) } else { Err(wrong) }
    }

    /// The same with a policy's variables; one that fails is missed by whoever uses it.
    fn with_variables(mut self, spec: &Value) -> Self {
        let mut variables = Map::new();
        self.values.push(("variables", cel::exactly(&json!({}))));
        for variable in list(&spec["variables"]) {
            if let Ok(value) = self.evaluate(lookup::text(variable, "/expression")) {
                variables.insert(lookup::text(variable, "/name").to_owned(), value);
                self.values.pop();
                self.values.push(("variables", cel::exactly(&Value::Object(variables.clone()))));
            }
        }
        self
    }
}
