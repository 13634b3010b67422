//! Pods.

use serde_json::json;

use super::super::Strategy;
use super::edit::{self, copy, set};
use super::{pod_defaults, qos, selectable};
use crate::control::apiserver::table;
use crate::control::apiserver::validation::pod as validation;

pub static POD: Strategy = Strategy {
    default: pod_defaults::pod,
    validate: validation::pod,
    prepare_create: |pod| {
        edit::set_generation(pod, 1);
        // The service account's name may have come from admission, after the defaults.
        if let Some(spec) = edit::existing(pod, "spec") {
            pod_defaults::service_account(spec);
        }
        let class = qos::class(pod);
        set(pod, "status", json!({"phase": "Pending", "qosClass": class}));
    },
    prepare_update: |pod, old| {
        copy(pod, old, "status");
        edit::count_changes(pod, old, pod["spec"] != old["spec"]);
    },
    fields: |pod, path| selectable(pod, path, FIELDS),
    columns: table::pod::COLUMNS,
    row: table::pod::row,
};

const FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];
