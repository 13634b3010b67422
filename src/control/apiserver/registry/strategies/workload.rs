//! ReplicaSets, Deployments, DaemonSets, StatefulSets, ReplicationControllers, ControllerRevisions, PodTemplates.

use serde_json::{Value, json};

use super::super::Strategy;
use super::edit::{self, default, existing, map};
use super::{PLAIN, pod_defaults, selectable};
use crate::control::apiserver::table::workload as table;
use crate::control::apiserver::validation::{stateful, workload as validation};

pub static REPLICA_SET: Strategy = Strategy {
    default: |object| {
        with_template(object, |spec| default(spec, "replicas", 1));
    },
    validate: validation::replica_set,
    prepare_create: |object| {
        edit::set(object, "status", json!({"replicas": 0}));
        edit::set_generation(object, 1);
    },
    prepare_update: edit::keep_status_count_spec,
    fields: |object, path| selectable(object, path, &["status.replicas"]),
    columns: table::REPLICA_SET,
    row: table::replica_set,
};

pub static DEPLOYMENT: Strategy = Strategy {
    default: |object| {
        with_template(object, |spec| {
            default(spec, "replicas", 1);
            default(spec, "revisionHistoryLimit", 10);
            default(spec, "progressDeadlineSeconds", 600);
            if let Some(strategy) = map(spec, "strategy") {
                rolling(strategy, &json!("25%"), &json!("25%"));
            }
        });
    },
    validate: validation::deployment,
    prepare_create: edit::new_with_generation,
    prepare_update: |object, old| {
        edit::copy(object, old, "status");
        // Deployments count a change of annotations too.
        let changed = object["spec"] != old["spec"]
            || object["metadata"]["annotations"] != old["metadata"]["annotations"];
        edit::count_changes(object, old, changed);
    },
    columns: table::DEPLOYMENT,
    row: table::deployment,
    ..PLAIN
};

pub static DAEMON_SET: Strategy = Strategy {
    default: |object| {
        with_template(object, |spec| {
            default(spec, "revisionHistoryLimit", 10);
            if let Some(strategy) = map(spec, "updateStrategy") {
                rolling(strategy, &json!(1), &json!(0));
            }
        });
    },
    validate: validation::daemon_set,
    prepare_create: |object| {
        let zero = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
        edit::set(object, "status", zero);
        edit::set_generation(object, 1);
    },
    prepare_update: edit::keep_status_count_spec,
    columns: table::DAEMON_SET,
    row: table::daemon_set,
    ..PLAIN
};

pub static STATEFUL_SET: Strategy = Strategy {
    default: |object| {
        with_template(object, |spec| {
            default(spec, "podManagementPolicy", "OrderedReady");
            default(spec, "replicas", 1);
            default(spec, "revisionHistoryLimit", 10);
            if let Some(strategy) = map(spec, "updateStrategy") {
                default(strategy, "type", "RollingUpdate");
                if strategy["type"] == "RollingUpdate"
                    && let Some(bounds) = map(strategy, "rollingUpdate")
                {
                    default(bounds, "partition", 0);
                }
            }
            if let Some(retention) = map(spec, "persistentVolumeClaimRetentionPolicy") {
                default(retention, "whenDeleted", "Retain");
                default(retention, "whenScaled", "Retain");
            }
            for claim in edit::items(spec, "volumeClaimTemplates") {
                default(claim, "apiVersion", "v1");
                default(claim, "kind", "PersistentVolumeClaim");
                super::storage::claim_defaults(claim);
                if let Some(status) = map(claim, "status") {
                    default(status, "phase", "Pending");
                }
            }
        });
    },
    validate: stateful::stateful_set,
    prepare_create: |object| {
        edit::set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
        edit::set_generation(object, 1);
    },
    prepare_update: edit::keep_status_count_spec,
    columns: table::STATEFUL_SET,
    row: table::stateful_set,
    ..PLAIN
};

/// Its selector and labels come from the template where they are not said.
pub static REPLICATION_CONTROLLER: Strategy = Strategy {
    default: |object| {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            let unsaid = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
            if let Some(spec) = map(object, "spec").filter(|spec| unsaid(&spec["selector"])) {
                edit::set(spec, "selector", labels.clone());
            }
            if let Some(own) = map(object, "metadata").filter(|own| unsaid(&own["labels"])) {
                edit::set(own, "labels", labels);
            }
        }
        with_template(object, |spec| default(spec, "replicas", 1));
    },
    validate: stateful::replication_controller,
    prepare_create: |object| {
        edit::set(object, "status", json!({"replicas": 0}));
        edit::set_generation(object, 1);
    },
    prepare_update: edit::keep_status_count_spec,
    fields: |object, path| selectable(object, path, &["status.replicas"]),
    columns: table::REPLICATION_CONTROLLER,
    row: table::replication_controller,
};

pub static REVISION: Strategy =
    Strategy { validate: validation::revision, columns: table::REVISION, row: table::revision, ..PLAIN };

pub static POD_TEMPLATE: Strategy = Strategy {
    default: |object| {
        existing(object, "template").into_iter().for_each(pod_defaults::template);
    },
    prepare_create: |object| edit::set_generation(object, 1),
    prepare_update: |object, old| edit::count_changes(object, old, object["template"] != old["template"]),
    columns: table::POD_TEMPLATE,
    row: table::pod_template,
    ..PLAIN
};

fn with_template(object: &mut Value, own: impl FnOnce(&mut Value)) {
    let Some(spec) = map(object, "spec") else { return };
    own(spec);
    existing(spec, "template").into_iter().for_each(pod_defaults::template);
}

/// A rolling update's bounds, where the strategy is one.
fn rolling(strategy: &mut Value, unavailable: &Value, surge: &Value) {
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate"
        && let Some(bounds) = map(strategy, "rollingUpdate")
    {
        default(bounds, "maxUnavailable", unavailable.clone());
        default(bounds, "maxSurge", surge.clone());
    }
}
