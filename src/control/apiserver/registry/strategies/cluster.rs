//! Namespaces, Nodes, Events, Leases, CertificateSigningRequests, PriorityClasses.

use serde_json::json;

use super::super::Strategy;
use super::edit::{copy, default, existing, map, set};
use super::{PLAIN, field, pod_defaults, selectable};
use crate::control::apiserver::table::{cluster as table, plain};
use crate::control::apiserver::validation::certificates;
use crate::control::apiserver::validation::cluster as validation;
use crate::control::apiserver::validation::event as events;
use crate::control::apiserver::versions::event;

pub static NAMESPACE: Strategy = Strategy {
    // Upstream sets the label in its defaults, so that an update cannot lose it.
    default: |object| {
        let name = object["metadata"]["name"].clone();
        if name.is_string()
            && let Some(labels) = map(object, "metadata").and_then(|m| map(m, "labels"))
        {
            set(labels, "kubernetes.io/metadata.name", name);
        }
    },
    validate: validation::namespace,
    prepare_create: |object| {
        set(object, "spec", json!({"finalizers": ["kubernetes"]}));
        set(object, "status", json!({"phase": "Active"}));
    },
    prepare_update: |object, old| {
        copy(object, old, "spec");
        copy(object, old, "status");
    },
    fields: |object, path| match path {
        "name" => Some(field(object, "metadata.name")),
        _ => selectable(object, path, &["status.phase"]),
    },
    columns: table::NAMESPACE,
    row: table::namespace,
};

pub static NODE: Strategy = Strategy {
    default: |object| {
        let Some(status) = existing(object, "status") else { return };
        for side in ["capacity", "allocatable"] {
            existing(status, side).into_iter().for_each(pod_defaults::amounts);
        }
        if status["capacity"].is_object() {
            let capacity = status["capacity"].clone();
            default(status, "allocatable", capacity);
        }
    },
    validate: validation::node,
    prepare_update: |object, old| copy(object, old, "status"),
    fields: |object, path| match path {
        // Go's zero value: a node without the field is schedulable.
        "spec.unschedulable" => Some((object["spec"]["unschedulable"] == true).to_string()),
        _ => super::metadata_field(object, path),
    },
    columns: table::NODE,
    row: table::node,
    ..PLAIN
};

pub static EVENT: Strategy = Strategy {
    default: |object| {
        for field in ["reportingComponent", "reportingInstance"] {
            if object[field].is_null() {
                set(object, field, json!(""));
            }
        }
        map(object, "source");
    },
    validate: events::event,
    fields: |object, path| match path {
        "source" => Some(match field(object, "source.component") {
            empty if empty.is_empty() => field(object, "reportingComponent"),
            component => component,
        }),
        _ => selectable(object, path, EVENT_FIELDS),
    },
    columns: table::EVENT,
    row: table::event,
    ..PLAIN
};

/// The same as `events.k8s.io/v1`; what is selected by is looked for in what is stored.
pub static EVENTS_EVENT: Strategy = Strategy {
    default: |object| {
        for field in ["deprecatedSource", "regarding"] {
            map(object, field);
        }
    },
    validate: |object, old| {
        events::new_event(&event::to_core(object.clone()), old.cloned().map(event::to_core).as_ref())
    },
    fields: |object, path| (EVENT.fields)(object, &event::selected(path)),
    columns: table::EVENT,
    row: |object, now| table::event(&event::to_core(object.clone()), now),
    ..PLAIN
};

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "type",
];

pub static LEASE: Strategy =
    Strategy { validate: validation::lease, columns: table::LEASE, row: table::lease, ..PLAIN };

pub static SIGNING_REQUEST: Strategy = Strategy {
    validate: certificates::signing_request,
    prepare_create: |object| set(object, "status", json!({})),
    // What was asked and by whom never changes; answers come by /approval and /status.
    prepare_update: |object, old| {
        copy(object, old, "spec");
        copy(object, old, "status");
    },
    fields: |object, path| selectable(object, path, &["spec.signerName"]),
    columns: table::SIGNING_REQUEST,
    row: table::signing_request,
    ..PLAIN
};

pub static PRIORITY_CLASS: Strategy = Strategy {
    default: |object| default(object, "preemptionPolicy", "PreemptLowerPriority"),
    validate: validation::priority_class,
    prepare_create: |object| super::edit::set_generation(object, 1),
    columns: plain::PRIORITY_CLASS,
    row: plain::priority_class,
    ..PLAIN
};
