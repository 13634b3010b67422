//! Tables of storage: classes, CSI drivers and nodes, capacities, attachments.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, count, integer, items, string, text};
use crate::control::apiserver::registry::Column;

/// What marks the class that claims without one get.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

const fn switch(name: &'static str, description: &'static str) -> Column {
    Column { kind: "boolean", ..text(name, description) }
}

pub const CLASS: &[Column] = &[
    NAME,
    text("Provisioner", "provisioner indicates the type of the provisioner."),
    text(
        "ReclaimPolicy",
        "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class.",
    ),
    text(
        "VolumeBindingMode",
        "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.",
    ),
    text("AllowVolumeExpansion", "allowVolumeExpansion shows whether the storage class allow volume expand."),
    AGE,
];

pub fn class(object: &Value, now: Timestamp) -> Vec<Value> {
    let name = string(object, "/metadata/name");
    let marked = object["metadata"]["annotations"][DEFAULT_CLASS] == "true";
    vec![
        if marked { format!("{name} (default)").into() } else { name.into() },
        string(object, "/provisioner").into(),
        string(object, "/reclaimPolicy").into(),
        string(object, "/volumeBindingMode").into(),
        (object["allowVolumeExpansion"] == true).into(),
        cells::age(object, now),
    ]
}

pub const DRIVER: &[Column] = &[
    NAME,
    switch("AttachRequired", "attachRequired indicates this CSI volume driver requires an attach operation."),
    switch(
        "PodInfoOnMount",
        "If set to true, podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, podUID, etc.) during mount operations.",
    ),
    switch(
        "StorageCapacity",
        "If set to true, storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report.",
    ),
    text(
        "TokenRequests",
        "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication.",
    ),
    switch(
        "RequiresRepublish",
        "RequiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume.",
    ),
    text("Modes", "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports."),
    AGE,
];

pub fn driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let listed = |pointer: &str, field: &str| {
        let all = items(object, pointer).iter();
        let texts: Vec<&str> =
            all.filter_map(|one| if field.is_empty() { one.as_str() } else { one[field].as_str() }).collect();
        texts.join(",")
    };
    let tokens = listed("/spec/tokenRequests", "audience");
    let spec = &object["spec"];
    vec![
        cells::name(object),
        (spec["attachRequired"] != false).into(),
        (spec["podInfoOnMount"] == true).into(),
        (spec["storageCapacity"] == true).into(),
        if tokens.is_empty() { "<unset>".into() } else { tokens.into() },
        (spec["requiresRepublish"] == true).into(),
        cells::none_if_empty(&listed("/spec/volumeLifecycleModes", "")),
        cells::age(object, now),
    ]
}

pub const NODE: &[Column] =
    &[NAME, integer("Drivers", "Drivers indicates the number of CSI drivers registered on the node"), AGE];

pub fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), count(object, "/spec/drivers").into(), cells::age(object, now)]
}

pub const CAPACITY: &[Column] = &[
    NAME,
    text("StorageClassName", "The name of the StorageClass that the reported capacity applies to."),
    text("Capacity", "The value reported by the CSI driver in its GetCapacityResponse."),
];

pub fn capacity(object: &Value, _now: Timestamp) -> Vec<Value> {
    let amount = match string(object, "/capacity") {
        "" => "<unset>",
        amount => amount,
    };
    vec![cells::name(object), string(object, "/storageClassName").into(), amount.into()]
}

pub const ATTACHMENT: &[Column] = &[
    NAME,
    text("Attacher", "attacher indicates the name of the volume driver that MUST handle this request."),
    text("PV", "persistentVolumeName represents the name of the persistent volume to attach."),
    text("Node", "nodeName represents the node that the volume should be attached to."),
    switch("Attached", "attached indicates the volume is successfully attached."),
    AGE,
];

pub fn attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        cells::name(object),
        string(object, "/spec/attacher").into(),
        string(object, "/spec/source/persistentVolumeName").into(),
        string(object, "/spec/nodeName").into(),
        (object["status"]["attached"] == true).into(),
        cells::age(object, now),
    ]
}

pub const ATTRIBUTES: &[Column] = &[NAME, text("DriverName", "Name of the CSI driver"), AGE];

pub fn attributes(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![cells::name(object), string(object, "/driverName").into(), cells::age(object, now)]
}
