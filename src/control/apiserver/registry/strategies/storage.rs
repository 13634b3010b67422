//! PersistentVolumes and their claims, classes and drivers; ResourceQuotas and LimitRanges.

use serde_json::{Value, json};

use super::super::Strategy;
use super::edit::{self, copy, default, existing, map, set};
use super::{PLAIN, pod_defaults};
use crate::control::apiserver::table::{plain as table, storage as class_table};
use crate::control::apiserver::validation::{quota, storage as validation};

pub static VOLUME: Strategy = Strategy {
    default: |object| {
        if let Some(spec) = map(object, "spec") {
            default(spec, "persistentVolumeReclaimPolicy", "Retain");
            default(spec, "volumeMode", "Filesystem");
            existing(spec, "capacity").into_iter().for_each(pod_defaults::amounts);
        }
    },
    prepare_create: |object| set(object, "status", json!({"phase": "Pending"})),
    prepare_update: |object, old| copy(object, old, "status"),
    columns: table::VOLUME,
    validate: validation::volume,
    row: table::volume,
    ..PLAIN
};

pub static CLAIM: Strategy = Strategy {
    default: claim_defaults,
    validate: validation::claim,
    prepare_create: |object| set(object, "status", json!({"phase": "Pending"})),
    prepare_update: |object, old| copy(object, old, "status"),
    columns: table::CLAIM,
    row: table::claim,
    ..PLAIN
};

/// A claim's own defaults; a StatefulSet's templates have them too.
pub fn claim_defaults(object: &mut Value) {
    if let Some(spec) = map(object, "spec") {
        default(spec, "volumeMode", "Filesystem");
        existing(spec, "resources").into_iter().for_each(pod_defaults::resources);
    }
}

pub static QUOTA: Strategy = Strategy {
    default: |object| {
        if let Some(hard) = existing(object, "spec").and_then(|spec| existing(spec, "hard")) {
            pod_defaults::amounts(hard);
        }
    },
    validate: quota::resource_quota,
    prepare_create: |object| set(object, "status", json!({})),
    prepare_update: |object, old| copy(object, old, "status"),
    columns: table::QUOTA,
    row: table::quota,
    ..PLAIN
};

/// Limits default each other: a default from the most, a default request from the default or the least.
pub static LIMIT_RANGE: Strategy = Strategy {
    default: |object| {
        let Some(spec) = existing(object, "spec") else { return };
        for item in edit::items(spec, "limits") {
            for side in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                existing(item, side).into_iter().for_each(pod_defaults::amounts);
            }
            if item["type"] != "Container" {
                continue;
            }
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                let Some(source) = item[from].as_object().cloned() else { continue };
                if let Some(target) = map(item, to) {
                    source.into_iter().for_each(|(name, amount)| default(target, &name, amount));
                }
            }
        }
    },
    validate: quota::limit_range,
    ..PLAIN
};

pub static CLASS: Strategy = Strategy {
    default: |object| {
        default(object, "reclaimPolicy", "Delete");
        default(object, "volumeBindingMode", "Immediate");
    },
    validate: validation::class,
    columns: class_table::CLASS,
    row: class_table::class,
    ..PLAIN
};

pub static CSI_DRIVER: Strategy = Strategy {
    default: |object| {
        if let Some(spec) = map(object, "spec") {
            default(spec, "attachRequired", true);
            for switch in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
                default(spec, switch, false);
            }
            default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if spec["volumeLifecycleModes"].as_array().is_none_or(Vec::is_empty) {
                set(spec, "volumeLifecycleModes", json!(["Persistent"]));
            }
        }
    },
    prepare_create: |object| edit::set_generation(object, 1),
    prepare_update: |object, old| edit::count_changes(object, old, object["spec"] != old["spec"]),
    columns: class_table::DRIVER,
    row: class_table::driver,
    ..PLAIN
};

pub static CSI_NODE: Strategy = Strategy { columns: class_table::NODE, row: class_table::node, ..PLAIN };

pub static CSI_CAPACITY: Strategy =
    Strategy { columns: class_table::CAPACITY, row: class_table::capacity, ..PLAIN };

pub static ATTACHMENT: Strategy = Strategy {
    prepare_create: |object| set(object, "status", json!({"attached": false})),
    prepare_update: |object, old| {
        copy(object, old, "spec");
        copy(object, old, "status");
    },
    columns: class_table::ATTACHMENT,
    row: class_table::attachment,
    ..PLAIN
};

pub static ATTRIBUTES_CLASS: Strategy = Strategy {
    validate: validation::attributes_class,
    columns: class_table::ATTRIBUTES,
    row: class_table::attributes,
    ..PLAIN
};
