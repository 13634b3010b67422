//! Which texts a field takes, where the typed crate does not say: `ENUM` in `kubectl explain`.
//!
//! Upstream marks these types `+enum`; values are listed in its order, by name.

use serde_json::{Map, Value, json};

const POLICY: &[&str] = &["Cluster", "Local"];
const PROTOCOL: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE: &[&str] = &["FallbackToLogsOnError", "File"];
const EFFECT: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const PREEMPT: &[&str] = &["Never", "PreemptLowerPriority"];
const ROLLOUT: &[&str] = &["Recreate", "RollingUpdate"];

/// Definition below `io.k8s.api.`, field, values.
const ENUMS: &[(&str, &str, &[&str])] = &[
    ("core.v1.PodSpec", "restartPolicy", &["Always", "Never", "OnFailure"]),
    ("core.v1.PodSpec", "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
    ("core.v1.PodSpec", "preemptionPolicy", PREEMPT),
    ("core.v1.PodStatus", "phase", &["Failed", "Pending", "Running", "Succeeded", "Unknown"]),
    ("core.v1.PodStatus", "qosClass", &["BestEffort", "Burstable", "Guaranteed"]),
    ("core.v1.Container", "imagePullPolicy", PULL),
    ("core.v1.Container", "terminationMessagePolicy", MESSAGE),
    ("core.v1.EphemeralContainer", "imagePullPolicy", PULL),
    ("core.v1.EphemeralContainer", "terminationMessagePolicy", MESSAGE),
    ("core.v1.ContainerPort", "protocol", PROTOCOL),
    ("core.v1.HTTPGetAction", "scheme", &["HTTP", "HTTPS"]),
    ("core.v1.SecurityContext", "procMount", &["Default", "Unmasked"]),
    ("core.v1.SeccompProfile", "type", &["Localhost", "RuntimeDefault", "Unconfined"]),
    ("core.v1.AppArmorProfile", "type", &["Localhost", "RuntimeDefault", "Unconfined"]),
    ("core.v1.PodSecurityContext", "fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
    ("core.v1.PodSecurityContext", "supplementalGroupsPolicy", &["Merge", "Strict"]),
    ("core.v1.Toleration", "effect", EFFECT),
    ("core.v1.Toleration", "operator", &["Equal", "Exists", "Gt", "Lt"]),
    ("core.v1.Taint", "effect", EFFECT),
    ("core.v1.NodeSelectorRequirement", "operator", &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"]),
    ("core.v1.TopologySpreadConstraint", "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
    ("core.v1.TopologySpreadConstraint", "nodeAffinityPolicy", &["Honor", "Ignore"]),
    ("core.v1.TopologySpreadConstraint", "nodeTaintsPolicy", &["Honor", "Ignore"]),
    (
        "core.v1.HostPathVolumeSource",
        "type",
        &[
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ],
    ),
    ("core.v1.ServiceSpec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    ("core.v1.ServiceSpec", "sessionAffinity", &["ClientIP", "None"]),
    ("core.v1.ServiceSpec", "internalTrafficPolicy", POLICY),
    ("core.v1.ServiceSpec", "externalTrafficPolicy", POLICY),
    ("core.v1.ServiceSpec", "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]),
    ("core.v1.ServicePort", "protocol", PROTOCOL),
    ("core.v1.EndpointPort", "protocol", PROTOCOL),
    ("core.v1.NamespaceStatus", "phase", &["Active", "Terminating"]),
    ("core.v1.NodeStatus", "phase", &["Pending", "Running", "Terminated"]),
    ("core.v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
    ("core.v1.PersistentVolumeSpec", "volumeMode", &["Block", "Filesystem"]),
    ("core.v1.PersistentVolumeClaimSpec", "volumeMode", &["Block", "Filesystem"]),
    ("apps.v1.DeploymentStrategy", "type", ROLLOUT),
    ("apps.v1.DaemonSetUpdateStrategy", "type", &["OnDelete", "RollingUpdate"]),
    ("discovery.v1.EndpointSlice", "addressType", &["FQDN", "IPv4", "IPv6"]),
    ("discovery.v1.EndpointPort", "protocol", PROTOCOL),
    ("scheduling.v1.PriorityClass", "preemptionPolicy", PREEMPT),
];

/// Adds the lists to the definitions that have them.
pub fn add(definitions: &mut Map<String, Value>) {
    for (definition, field, values) in ENUMS {
        let found = definitions.get_mut(&format!("io.k8s.api.{definition}"));
        if let Some(field) =
            found.and_then(|found| found["properties"].get_mut(*field)).and_then(Value::as_object_mut)
        {
            field.insert("enum".into(), json!(values));
        }
    }
}

#[cfg(test)]
pub fn names() -> impl Iterator<Item = (String, &'static str)> {
    ENUMS.iter().map(|(definition, field, _)| (format!("io.k8s.api.{definition}"), *field))
}
