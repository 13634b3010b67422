//! Ingresses and their classes, ServiceCIDRs, IPAddresses.

use serde_json::json;

use super::super::Strategy;
use super::edit::{self, default, existing};
use super::{PLAIN, selectable};
use crate::control::apiserver::table::ingress as table;
use crate::control::apiserver::validation::ingress as validation;

pub static INGRESS: Strategy = Strategy {
    validate: validation::ingress,
    prepare_create: |object| {
        edit::set(object, "status", json!({"loadBalancer": {}}));
        edit::set_generation(object, 1);
    },
    prepare_update: edit::keep_status_count_spec,
    columns: table::INGRESS,
    row: table::ingress,
    ..PLAIN
};

pub static CLASS: Strategy = Strategy {
    default: |object| {
        if let Some(parameters) = existing(object, "spec").and_then(|spec| existing(spec, "parameters")) {
            default(parameters, "scope", "Cluster");
        }
    },
    validate: validation::class,
    prepare_create: |object| edit::set_generation(object, 1),
    prepare_update: |object, old| edit::count_changes(object, old, object["spec"] != old["spec"]),
    columns: table::CLASS,
    row: table::class,
    ..PLAIN
};

pub static SERVICE_CIDR: Strategy = Strategy {
    validate: validation::service_cidr,
    prepare_create: edit::new_with_generation,
    prepare_update: edit::keep_status_count_spec,
    columns: table::SERVICE_CIDR,
    row: table::service_cidr,
    ..PLAIN
};

pub static IP_ADDRESS: Strategy = Strategy {
    validate: validation::ip_address,
    fields: |object, path| {
        let parent = [
            "spec.parentRef.group",
            "spec.parentRef.resource",
            "spec.parentRef.name",
            "spec.parentRef.namespace",
        ];
        selectable(object, path, &parent)
    },
    columns: table::IP_ADDRESS,
    row: table::ip_address,
    ..PLAIN
};
