//! NetworkPolicies.

use serde_json::json;

use super::super::Strategy;
use super::PLAIN;
use super::edit::{self, default, items, map, set};
use crate::control::apiserver::table::network as table;
use crate::control::apiserver::validation::policy as validation;

pub static NETWORK_POLICY: Strategy = Strategy {
    default: |object| {
        let Some(spec) = map(object, "spec") else { return };
        // An empty selector is every pod of the namespace, and is said.
        default(spec, "podSelector", json!({}));
        for direction in ["ingress", "egress"] {
            for rule in items(spec, direction) {
                items(rule, "ports").for_each(|port| default(port, "protocol", "TCP"));
            }
        }
        if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
            let outward = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
            set(spec, "policyTypes", if outward { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
    },
    validate: validation::network_policy,
    prepare_create: |object| edit::set_generation(object, 1),
    prepare_update: |object, old| {
        let changed = object["spec"] != old["spec"];
        edit::count_changes(object, old, changed);
    },
    columns: table::NETWORK_POLICY,
    row: table::network_policy,
    ..PLAIN
};
