//! Tables of configuration and access: ConfigMaps, Secrets, ServiceAccounts, bindings, and what has no
//! table of its own.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, CREATED_AT, NAME, count, integer, items, string, text, wide};
use crate::control::apiserver::registry::Column;

/// What upstream prints for kinds it has no printer for (Roles among them).
pub const OTHER: &[Column] = &[NAME, CREATED_AT];

pub fn other(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), string(object, "/metadata/creationTimestamp").into()]
}

pub const CONFIG_MAP: &[Column] = &[NAME, text("Data", "Data contains the configuration data."), AGE];

pub fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = count(object, "/data") + count(object, "/binaryData");
    vec![cells::name(object), entries.into(), cells::age(object, now)]
}

pub const SECRET: &[Column] = &[
    NAME,
    text("Type", "Used to facilitate programmatic handling of secret data."),
    text("Data", "Data contains the secret data."),
    AGE,
];

pub fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = count(object, "/data");
    vec![cells::name(object), string(object, "/type").into(), entries.into(), cells::age(object, now)]
}

pub const SERVICE_ACCOUNT: &[Column] = &[
    NAME,
    text(
        "Secrets",
        "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use.",
    ),
    AGE,
];

pub fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), count(object, "/secrets").into(), cells::age(object, now)]
}

pub const ROLE_BINDING: &[Column] = &[
    NAME,
    text(
        "Role",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace.",
    ),
    AGE,
    wide("Users", "Users in the roleBinding"),
    wide("Groups", "Groups in the roleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

pub fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = items(object, "/subjects").iter().filter(|subject| subject["kind"] == kind);
        let names: Vec<String> = subjects
            .map(|subject| match (kind, string(subject, "/name")) {
                ("ServiceAccount", name) => format!("{}/{name}", string(subject, "/namespace")),
                (_, name) => name.to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        cells::name(object),
        format!("{}/{}", string(object, "/roleRef/kind"), string(object, "/roleRef/name")).into(),
        cells::age(object, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

pub const PRIORITY_CLASS: &[Column] = &[
    NAME,
    integer("Value", "value represents the integer value of this priority class."),
    Column {
        kind: "boolean",
        ..text(
            "Global-Default",
            "globalDefault specifies whether this PriorityClass should be considered as the default priority.",
        )
    },
    AGE,
    text("PreemptionPolicy", "preemptionPolicy is the Policy for preempting pods with lower priority."),
];

pub fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cells::name(object),
        cells::number(object, "/value").into(),
        (object["globalDefault"] == true).into(),
        cells::age(object, now),
        string(object, "/preemptionPolicy").into(),
    ]
}

pub const VOLUME: &[Column] = &[
    NAME,
    text("Capacity", "capacity is the description of the persistent volume's resources and capacity."),
    text("Access Modes", "accessModes contains all ways the volume can be mounted."),
    text(
        "Reclaim Policy",
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim.",
    ),
    text("Status", "phase indicates if a volume is available, bound to a claim, or released by a claim."),
    text(
        "Claim",
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim.",
    ),
    text(
        "StorageClass",
        "storageClassName is the name of StorageClass to which this persistent volume belongs.",
    ),
    text("VolumeAttributesClass", "Name of VolumeAttributesClass to which this persistent volume belongs."),
    text("Reason", "reason is a brief CamelCase string that describes any failure."),
    AGE,
    wide(
        "VolumeMode",
        "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state.",
    ),
];

pub fn volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match string(object, "/spec/claimRef/name") {
        "" => String::new(),
        name => format!("{}/{name}", string(object, "/spec/claimRef/namespace")),
    };
    vec![
        cells::name(object),
        string(object, "/spec/capacity/storage").into(),
        access_modes(object, "/spec/accessModes"),
        string(object, "/spec/persistentVolumeReclaimPolicy").into(),
        phase(object),
        claim.into(),
        string(object, "/spec/storageClassName").into(),
        unset(object, "/spec/volumeAttributesClassName"),
        string(object, "/status/reason").into(),
        cells::age(object, now),
        unset(object, "/spec/volumeMode"),
    ]
}

pub const CLAIM: &[Column] = &[
    NAME,
    text("Status", "phase represents the current phase of PersistentVolumeClaim."),
    text("Volume", "volumeName is the binding reference to the PersistentVolume backing this claim."),
    text("Capacity", "capacity represents the actual resources of the underlying volume."),
    text("Access Modes", "accessModes contains the actual access modes the volume backing the PVC has."),
    text("StorageClass", "storageClassName is the name of the StorageClass required by the claim."),
    text(
        "VolumeAttributesClass",
        "volumeAttributesClassName may be used to set the VolumeAttributesClass used by this claim.",
    ),
    AGE,
    wide("VolumeMode", "volumeMode defines what type of volume is required by the claim."),
];

pub fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = !string(object, "/spec/volumeName").is_empty();
    vec![
        cells::name(object),
        phase(object),
        string(object, "/spec/volumeName").into(),
        if bound { string(object, "/status/capacity/storage").into() } else { "".into() },
        if bound { access_modes(object, "/status/accessModes") } else { "".into() },
        string(object, "/spec/storageClassName").into(),
        unset(object, "/spec/volumeAttributesClassName"),
        cells::age(object, now),
        unset(object, "/spec/volumeMode"),
    ]
}

fn phase(object: &Value) -> Value {
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    if deleting { "Terminating".into() } else { string(object, "/status/phase").into() }
}

fn unset(object: &Value, pointer: &str) -> Value {
    match string(object, pointer) {
        "" => "<unset>".into(),
        text => text.into(),
    }
}

fn access_modes(object: &Value, pointer: &str) -> Value {
    let modes = items(object, pointer).iter().map(|mode| match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    });
    modes.collect::<Vec<_>>().join(",").into()
}

pub const QUOTA: &[Column] = &[
    NAME,
    text("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
    text(
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    AGE,
];

pub fn quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let side = |limits: bool| {
        let hard = object["status"]["hard"].as_object().into_iter().flatten();
        let own = hard.filter(|(name, _)| name.starts_with("limits.") == limits);
        let texts: Vec<String> = own
            .map(|(name, hard)| {
                let used = object["status"]["used"][name].as_str().unwrap_or("0");
                format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
            })
            .collect();
        Value::from(texts.join(", "))
    };
    vec![cells::name(object), side(false), side(true), cells::age(object, now)]
}
