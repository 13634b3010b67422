//! Which maps and lists are one value, and which lists have keys that no patch strategy names
//! (`x-kubernetes-map-type`, `x-kubernetes-list-type`): what server-side apply goes by.
//!
//! Stands for the `+structType`, `+mapType` and `+listType` marks of `k8s.io/api`, which the typed crate does not
//! carry.

use serde_json::{Map, Value, json};

/// Types that are always one value.
const WHOLE: &[&str] = &[
    "api.admissionregistration.v1.MatchResources",
    "api.admissionregistration.v1.NamedRuleWithOperations",
    "api.admissionregistration.v1.ParamKind",
    "api.admissionregistration.v1.ParamRef",
    "api.autoscaling.v1.CrossVersionObjectReference",
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.EndpointAddress",
    "api.core.v1.EndpointPort",
    "api.core.v1.FileKeySelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.ScopeSelector",
    "api.core.v1.ScopedResourceSelectorRequirement",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.SecretReference",
    "api.core.v1.TopologySelectorTerm",
    "api.core.v1.TypedLocalObjectReference",
    "api.discovery.v1.EndpointPort",
    "api.rbac.v1.RoleRef",
    "api.rbac.v1.Subject",
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "apimachinery.pkg.apis.meta.v1.OwnerReference",
];

/// Fields whose map is one value.
const MAPS: &[(&str, &str)] = &[
    ("api.core.v1.PodSpec", "nodeSelector"),
    ("api.core.v1.ServiceSpec", "selector"),
    ("api.core.v1.ReplicationControllerSpec", "selector"),
    ("api.core.v1.CSIPersistentVolumeSource", "volumeAttributes"),
];

/// Lists with keys of their own.
const KEYED: &[(&str, &str, &[&str])] = &[
    ("api.core.v1.PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("api.core.v1.ResourceRequirements", "claims", &["name"]),
    ("api.networking.v1.IngressStatus", "conditions", &["type"]),
    ("api.certificates.v1.CertificateSigningRequestStatus", "conditions", &["type"]),
    ("api.flowcontrol.v1.FlowSchemaStatus", "conditions", &["type"]),
    ("api.flowcontrol.v1.PriorityLevelConfigurationStatus", "conditions", &["type"]),
    ("api.admissionregistration.v1.ValidatingAdmissionPolicyStatus", "conditions", &["type"]),
    (
        "apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        &["type"],
    ),
];

/// Lists that are sets beside those a patch merges.
const SETS: &[(&str, &str)] = &[
    ("api.core.v1.LoadBalancerStatus", "ipFamilies"),
    ("api.batch.v1.UncountedTerminatedPods", "failed"),
    ("api.batch.v1.UncountedTerminatedPods", "succeeded"),
    ("api.flowcontrol.v1.ResourcePolicyRule", "verbs"),
];

/// Marks the definitions.
pub fn add(definitions: &mut Map<String, Value>) {
    for name in WHOLE {
        if let Some(definition) = definitions.get_mut(&format!("io.k8s.{name}")) {
            definition["x-kubernetes-map-type"] = json!("atomic");
        }
    }
    let mut field = |definition: &str, field: &str, marks: &[(&str, Value)]| {
        let found = definitions.get_mut(&format!("io.k8s.{definition}"));
        if let Some(field) =
            found.and_then(|found| found["properties"].get_mut(field)).and_then(Value::as_object_mut)
        {
            marks.iter().for_each(|(name, value)| drop(field.insert((*name).into(), value.clone())));
        }
    };
    for (definition, name) in MAPS {
        field(definition, name, &[("x-kubernetes-map-type", json!("atomic"))]);
    }
    for (definition, name) in SETS {
        field(definition, name, &[("x-kubernetes-list-type", json!("set"))]);
    }
    for definition in ["api.core.v1.ContainerPort", "api.core.v1.ServicePort"] {
        field(definition, "protocol", &[("default", json!("TCP"))]);
    }
}

/// Marks that go over those a patch strategy left.
pub fn keys(definitions: &mut Map<String, Value>) {
    for (definition, name, keys) in KEYED {
        let found = definitions.get_mut(&format!("io.k8s.{definition}"));
        if let Some(field) =
            found.and_then(|found| found["properties"].get_mut(*name)).and_then(Value::as_object_mut)
        {
            field.insert("x-kubernetes-list-type".into(), json!("map"));
            field.insert("x-kubernetes-list-map-keys".into(), json!(keys));
        }
    }
}
