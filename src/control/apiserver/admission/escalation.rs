//! Nobody hands out what they do not hold: RBAC's guard against escalation
//! (`pkg/registry/rbac/*/policybased`). `escalate` on roles and `bind` on bindings are the ways around it.

use serde_json::Value;

use super::{Attributes, Context, Operation};
use crate::api::go_list::quoted;
use crate::api::status::{Result, Status};
use crate::control::apiserver::authz::Rule;
use crate::control::apiserver::request::{RequestInfo, ResourceRequest};
use crate::control::apiserver::{encode, lookup};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) async fn admit(context: &Context, write: &Attributes) -> Result<()> {
    if write.group != GROUP || !write.subresource.is_empty() || write.operation == Operation::Delete {
        return Ok(());
    }
    let Some(object) = &write.object else { return Ok(()) };
    match write.resource.as_str() {
        "roles" | "clusterroles" => role(context, write, object).await,
        "rolebindings" | "clusterrolebindings" => binding(context, write, object).await,
        _ => Ok(()),
    }
}

async fn role(context: &Context, write: &Attributes, role: &Value) -> Result<()> {
    let aggregates = |object: Option<&Value>| object.is_some_and(|one| one["aggregationRule"].is_object());
    if only_for_the_collector(write, role)
        || may(context, write, "escalate", &write.resource, asked_for(write)).await
    {
        return Ok(());
    }
    check(context, write, &rules(&role["rules"]))?;
    // It can gather anything, so it needs everything.
    let gathers = aggregates(Some(role)) || aggregates(write.old.as_ref());
    if gathers && !context.authorizer.lacks(&write.user, "", &Rule::everything()).0.is_empty() {
        return Err(write.forbidden("must have cluster-admin privileges to use an aggregationRule"));
    }
    Ok(())
}

async fn binding(context: &Context, write: &Attributes, binding: &Value) -> Result<()> {
    let (kind, name) = (lookup::text(binding, "/roleRef/kind"), lookup::text(binding, "/roleRef/name"));
    let plural = kind.to_lowercase() + "s";
    if only_for_the_collector(write, binding) || may(context, write, "bind", &plural, name).await {
        return Ok(());
    }
    if write.user.in_group(crate::control::apiserver::authz::MASTERS) {
        return Ok(());
    }
    let namespace = if kind == "Role" { write.namespace.as_str() } else { "" };
    let found = lookup::object(&context.store, GROUP, &plural, namespace, name);
    let role = found.ok_or_else(|| Status::not_found(GROUP, kind.to_lowercase().as_str(), name))?;
    check(context, write, &rules(&role["rules"]))
}

/// The name in the request's path, which the authorizer is asked about: a POST has none, so a grant for
/// some names lets nobody create.
fn asked_for(write: &Attributes) -> &str {
    if write.old.is_some() { &write.name } else { "" }
}

/// Whether nothing changes but what the garbage collector writes (`rbac.IsOnlyMutatingGCFields`). A label is
/// no such thing: it may gather a role into another.
fn only_for_the_collector(write: &Attributes, object: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(meta) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                meta.remove(field);
            }
        }
        encode::prune(&mut object);
        object
    };
    write.old.as_ref().is_some_and(|old| rest(old) == rest(object))
}

/// The rules of a role; what cannot be read counts as everything.
fn rules(list: &Value) -> Vec<Rule> {
    match list {
        Value::Null => Vec::new(),
        list => serde_json::from_value(list.clone()).unwrap_or_else(|_| Rule::everything()),
    }
}

/// Refuses rules the user does not hold.
fn check(context: &Context, write: &Attributes, wanted: &[Rule]) -> Result<()> {
    let (lacking, errors) = context.authorizer.lacks(&write.user, &write.namespace, wanted);
    if lacking.is_empty() {
        return Ok(());
    }
    let mut printed: Vec<String> = lacking.iter().map(Rule::printed).collect();
    printed.sort();
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        write.user.name,
        quoted(&write.user.groups),
        printed.join("\n")
    );
    if !errors.is_empty() {
        why += &format!("; resolution errors: [{}]", errors.join(", "));
    }
    Err(write.forbidden(why))
}

/// Whether the user holds the verb that lets them go past the check.
async fn may(context: &Context, write: &Attributes, verb: &str, resource: &str, name: &str) -> bool {
    let resource = ResourceRequest {
        group: GROUP.into(),
        version: "*".into(),
        namespace: write.namespace.clone(),
        resource: resource.into(),
        name: name.into(),
        ..Default::default()
    };
    let info = RequestInfo { verb: verb.into(), resource: Some(resource), ..RequestInfo::default() };
    context.authorizer.authorize(&write.user, &info).await.is_allowed()
}
