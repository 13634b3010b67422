//! PersistentVolumes, PersistentVolumeClaims and ResourceQuotas: kept and shown; no controller of ours
//! binds or counts them.

use serde_json::json;

use super::super::Strategy;
use super::edit::{copy, default, existing, map, set};
use super::{PLAIN, pod_defaults};
use crate::control::apiserver::table::plain as table;

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
    row: table::volume,
    ..PLAIN
};

pub static CLAIM: Strategy = Strategy {
    default: |object| {
        if let Some(spec) = map(object, "spec") {
            default(spec, "volumeMode", "Filesystem");
            existing(spec, "resources").into_iter().for_each(pod_defaults::resources);
        }
    },
    prepare_create: |object| set(object, "status", json!({"phase": "Pending"})),
    prepare_update: |object, old| copy(object, old, "status"),
    columns: table::CLAIM,
    row: table::claim,
    ..PLAIN
};

pub static QUOTA: Strategy = Strategy {
    prepare_create: |object| set(object, "status", json!({})),
    prepare_update: |object, old| copy(object, old, "status"),
    columns: table::QUOTA,
    row: table::quota,
    ..PLAIN
};
