//! Nobody hands out what they do not hold: RBAC's guard against escalation
//! (`pkg/registry/rbac/*/policybased`). `escalate` on roles and `bind` on bindings are the ways around it.

use serde_json::Value;

use super::{Attributes, Context, Operation};
use crate::api::status::Result;
use crate::control::apiserver::authz::Rule;
use crate::control::apiserver::lookup;
use crate::control::apiserver::request::{RequestInfo, ResourceRequest};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn admit(context: &Context, write: &Attributes) -> Result<()> {
    if write.group != GROUP || !write.subresource.is_empty() || write.operation == Operation::Delete {
        return Ok(());
    }
    let Some(object) = &write.object else { return Ok(()) };
    let (field, verb) = match write.resource.as_str() {
        "roles" | "clusterroles" => ("rules", "escalate"),
        "rolebindings" | "clusterrolebindings" => ("roleRef", "bind"),
        _ => return Ok(()),
    };
    let unchanged = |old: &Value| old[field] == object[field] && old["subjects"] == object["subjects"];
    if write.old.as_ref().is_some_and(unchanged) {
        return Ok(());
    }
    if object["aggregationRule"].is_object() && write.resource == "clusterroles" {
        return whoever_aggregates_holds_all(context, write);
    }
    let rules = match field {
        "rules" => Some(object["rules"].clone()),
        _ => role_rules(context, write, object),
    };
    // A role that does not exist (yet) may become anything.
    let rules = rules.map(|rules| if rules.is_null() { Value::Array(Vec::new()) } else { rules });
    let rules: Vec<Rule> =
        rules.and_then(|rules| serde_json::from_value(rules).ok()).unwrap_or_else(Rule::everything);
    if context.authorizer.covers(&write.user, &write.namespace, &rules)
        || is_authorized(context, write, object, verb)
    {
        return Ok(());
    }
    Err(refusal(write, &rules))
}

fn role_rules(context: &Context, write: &Attributes, binding: &Value) -> Option<Value> {
    let name = lookup::text(binding, "/roleRef/name");
    let role = match lookup::text(binding, "/roleRef/kind") {
        "Role" => lookup::object(&context.store, GROUP, "roles", &write.namespace, name),
        _ => lookup::object(&context.store, GROUP, "clusterroles", "", name),
    };
    role.map(|role| role["rules"].clone())
}

/// Whether the user holds the verb that lets them escalate.
fn is_authorized(context: &Context, write: &Attributes, object: &Value, verb: &str) -> bool {
    let (resource, name, namespace) = match verb {
        "escalate" => (write.resource.clone(), write.name.clone(), write.namespace.clone()),
        _ => {
            let role = lookup::text(object, "/roleRef/kind").to_lowercase() + "s";
            (role, lookup::text(object, "/roleRef/name").to_owned(), write.namespace.clone())
        }
    };
    let resource = ResourceRequest {
        group: GROUP.into(),
        version: "*".into(),
        namespace,
        resource,
        name,
        ..Default::default()
    };
    let info = RequestInfo { verb: verb.into(), resource: Some(resource), ..RequestInfo::default() };
    context.authorizer.authorize(&write.user, &info).is_allowed()
}

fn whoever_aggregates_holds_all(context: &Context, write: &Attributes) -> Result<()> {
    let before = write.old.as_ref().map(|old| &old["aggregationRule"]);
    let same = before == write.object.as_ref().map(|object| &object["aggregationRule"]);
    let everything = Rule::everything();
    if same || context.authorizer.covers(&write.user, "", &everything) {
        return Ok(());
    }
    Err(write.forbidden("must have cluster-admin privileges to use an aggregationRule"))
}

fn refusal(write: &Attributes, rules: &[Rule]) -> crate::api::status::Status {
    let groups: Vec<String> = write.user.groups.iter().map(|group| format!("{group:?}")).collect();
    let lacking: Vec<String> = rules.iter().map(printed).collect();
    write.forbidden(format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        write.user.name,
        groups.join(" "),
        lacking.join("\n")
    ))
}

/// A rule as upstream's `CompactString` prints it.
fn printed(rule: &Rule) -> String {
    let lists = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = lists
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| format!("{name}:{list:?}"))
        .collect();
    format!("{{{}}}", parts.join(", "))
}
