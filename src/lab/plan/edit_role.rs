//! The rules behind the roles `edit` and `admin`, with `pods/proxy` and `services/proxy` as upstream ships them
//! or without (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`, `system:aggregate-to-edit`).
//!
//! The API server mends its own roles at every start; one annotated `autoupdate: "false"` it leaves alone,
//! which is how an administrator takes a rule out for good.

use serde_json::{Value, json};

use crate::lab::paths::{Setting, Settings};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Verbs, group, resources: upstream's rows.
const RULES: &[(&[&str], &str, &str)] = &[
    (READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    (&["impersonate"], "", "serviceaccounts"),
    (WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    (&["create"], "", "pods/eviction"),
    (
        WRITE,
        "",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
         serviceaccounts services services/proxy",
    ),
    (&["create"], "", "serviceaccounts/token"),
    (
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
         statefulsets/scale",
    ),
    (WRITE, "autoscaling", "horizontalpodautoscalers"),
    (WRITE, "batch", "cronjobs jobs"),
    (
        WRITE,
        "extensions",
        "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
         replicasets/scale replicationcontrollers/scale",
    ),
    (WRITE, "policy", "poddisruptionbudgets"),
    (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    (READ_WRITE, "coordination.k8s.io", "leases"),
    (WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
];

/// `system:aggregate-to-edit` as `apiserver-proxy.grants` has it.
pub fn edit_role(settings: &Settings) -> Value {
    let closed = settings.hardened(Setting::ProxyGrants);
    let rule = |(verbs, group, resources): &(&[&str], &str, &str)| {
        let resources: Vec<&str> =
            resources.split_whitespace().filter(|name| !closed || !name.ends_with("/proxy")).collect();
        json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
    };
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {
            "name": "system:aggregate-to-edit",
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": (!closed).to_string()},
            "labels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"},
        },
        "rules": RULES.iter().map(rule).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::paths::Profile;

    #[test]
    fn only_the_proxy_is_taken_out() {
        let names = |profile| {
            let role = edit_role(&Settings::of(profile));
            let rules = role["rules"].as_array().unwrap().clone();
            let all = rules.iter().flat_map(|rule| rule["resources"].as_array().unwrap().clone());
            all.map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (open, closed) = (names(Profile::Default), names(Profile::Hardened));
        assert_eq!(open.iter().filter(|name| !name.ends_with("/proxy")).cloned().collect::<Vec<_>>(), closed);
        assert_eq!(open.len() - closed.len(), 4);
    }
}
