//! ServiceAccounts and RBAC.

use serde_json::Value;

use super::{each, invalid_all, join, metadata, required, text};
use crate::api::names;
use crate::api::status::Cause;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn service_account(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    metadata::check(object, old, names::dns1123_subdomain)
}

pub fn role(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::path_segment);
    rules(&mut causes, object, true);
    causes
}

pub fn cluster_role(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::path_segment);
    rules(&mut causes, object, false);
    if object["aggregationRule"].is_object()
        && object["aggregationRule"]["clusterRoleSelectors"].as_array().is_none_or(Vec::is_empty)
    {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        causes.push(Cause::required("aggregationRule.clusterRoleSelectors", why));
    }
    causes
}

fn rules(causes: &mut Vec<Cause>, role: &Value, namespaced: bool) {
    for (path, rule) in each(role, "rules", "") {
        let empty = |field: &str| rule[field].as_array().is_none_or(Vec::is_empty);
        let mut need = |field: &str, why: &str| {
            if empty(field) {
                causes.push(Cause::required(join(&path, field), why));
            }
        };
        need("verbs", "verbs must contain at least one value");
        if empty("nonResourceURLs") {
            need("apiGroups", "resource rules must supply at least one api group");
            need("resources", "resource rules must supply at least one resource");
            continue;
        }
        let why = if namespaced {
            "namespaced rules cannot apply to non-resource URLs"
        } else if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            "rules cannot apply to both regular resources and non-resource URLs"
        } else {
            continue;
        };
        causes.push(Cause::invalid(join(&path, "nonResourceURLs"), &rule["nonResourceURLs"], why));
    }
}

pub fn role_binding(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    binding(object, old, &["Role", "ClusterRole"])
}

pub fn cluster_role_binding(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    binding(object, old, &["ClusterRole"])
}

fn binding(object: &Value, old: Option<&Value>, kinds: &[&str]) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::path_segment);
    let role = &object["roleRef"];
    if text(role, "apiGroup") != GROUP {
        causes.push(Cause::unsupported("roleRef.apiGroup", &role["apiGroup"], &[GROUP]));
    }
    if !kinds.contains(&text(role, "kind")) {
        causes.push(Cause::unsupported("roleRef.kind", &role["kind"], kinds));
    }
    if required(&mut causes, role, "name", "roleRef") {
        causes.extend(invalid_all("roleRef.name", &role["name"], names::path_segment(text(role, "name"))));
    }
    for (path, subject) in each(object, "subjects", "") {
        subject_of(&mut causes, subject, &path);
    }
    if let Some(old) = old
        && *role != old["roleRef"]
    {
        causes.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
    }
    causes
}

fn subject_of(causes: &mut Vec<Cause>, subject: &Value, path: &str) {
    required(causes, subject, "name", path);
    let group = text(subject, "apiGroup");
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !text(subject, "name").is_empty() {
                let reasons = names::dns1123_subdomain(text(subject, "name"));
                causes.extend(invalid_all(&join(path, "name"), &subject["name"], reasons));
            }
            if !group.is_empty() {
                causes.push(Cause::unsupported(join(path, "apiGroup"), &subject["apiGroup"], &[""]));
            }
            required(causes, subject, "namespace", path);
        }
        "User" | "Group" if group == GROUP => {}
        "User" | "Group" => {
            causes.push(Cause::unsupported(join(path, "apiGroup"), &subject["apiGroup"], &[GROUP]));
        }
        _ => {
            let kinds = ["ServiceAccount", "User", "Group"];
            causes.push(Cause::unsupported(join(path, "kind"), &subject["kind"], &kinds));
        }
    }
}
