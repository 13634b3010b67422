//! ServiceAccounts and RBAC.

use serde_json::{Value, json};

use super::super::Strategy;
use super::PLAIN;
use super::edit::{default, existing, items, set};
use crate::control::apiserver::table::plain as table;
use crate::control::apiserver::validation::access as validation;

const GROUP: &str = "rbac.authorization.k8s.io";

pub static SERVICE_ACCOUNT: Strategy = Strategy {
    validate: validation::service_account,
    columns: table::SERVICE_ACCOUNT,
    row: table::service_account,
    ..PLAIN
};

pub static ROLE: Strategy = Strategy { validate: validation::role, ..PLAIN };
pub static CLUSTER_ROLE: Strategy = Strategy { validate: validation::cluster_role, ..PLAIN };

pub static ROLE_BINDING: Strategy = Strategy { validate: validation::role_binding, ..BINDING };
pub static CLUSTER_ROLE_BINDING: Strategy =
    Strategy { validate: validation::cluster_role_binding, ..BINDING };

const BINDING: Strategy =
    Strategy { default: binding, columns: table::ROLE_BINDING, row: table::role_binding, ..PLAIN };

fn binding(object: &mut Value) {
    if let Some(role) = existing(object, "roleRef") {
        default(role, "apiGroup", GROUP);
    }
    for subject in items(object, "subjects") {
        match subject["kind"].as_str() {
            Some("User" | "Group") => default(subject, "apiGroup", GROUP),
            Some("ServiceAccount") if subject["apiGroup"].is_null() => set(subject, "apiGroup", json!("")),
            _ => {}
        }
        if subject["apiGroup"] == "" {
            super::edit::remove(subject, "apiGroup");
        }
    }
}
