//! Which lists a strategic merge patch merges, and by which key: one table for the built-in types.
//!
//! Stands for the `patchStrategy` and `patchMergeKey` tags of `k8s.io/api`; read by the patch code and
//! by OpenAPI's `x-kubernetes-patch-*` extensions. A list without a row is replaced whole.

/// How one field is patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// What its JSON type does by itself: maps merge, lists and scalars are replaced.
    Default,
    /// A list of maps merged by the named field.
    Keyed(&'static str),
    /// As `Keyed`; kubectl also sends `$retainKeys` for the items (`merge,retainKeys`).
    KeyedRetain(&'static str),
    /// A list of scalars merged as a set.
    Set,
    /// A map that is replaced whole.
    Replace,
    /// A map for which kubectl sends `$retainKeys`.
    Retain,
}

impl Merge {
    /// The `x-kubernetes-patch-strategy` text.
    pub fn strategy(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Keyed(_) | Self::Set => Some("merge"),
            Self::KeyedRetain(_) => Some("merge,retainKeys"),
            Self::Replace => Some("replace"),
            Self::Retain => Some("retainKeys"),
        }
    }

    /// The `x-kubernetes-patch-merge-key` text.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Keyed(key) | Self::KeyedRetain(key) => Some(key),
            _ => None,
        }
    }
}

/// A type as far as patching cares: `definition` is OpenAPI's name without `io.k8s.`.
#[derive(Debug)]
pub struct Type {
    pub definition: &'static str,
    pub fields: &'static [Field],
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub merge: Merge,
    /// The type of the field's value, or of its items.
    pub of: &'static Type,
}

impl Type {
    /// The row of a field; unknown fields merge by their JSON type.
    pub fn field(&self, name: &str) -> (Merge, &'static Type) {
        let found = self.fields.iter().find(|field| field.name == name);
        found.map_or((Merge::Default, &LEAF), |field| (field.merge, field.of))
    }
}

/// Where nothing below needs a key.
pub static LEAF: Type = Type { definition: "", fields: &[] };

const fn keyed(name: &'static str, key: &'static str, of: &'static Type) -> Field {
    Field { name, merge: Merge::Keyed(key), of }
}

const fn retain(name: &'static str, key: &'static str) -> Field {
    Field { name, merge: Merge::KeyedRetain(key), of: &LEAF }
}

const fn set(name: &'static str) -> Field {
    Field { name, merge: Merge::Set, of: &LEAF }
}

const fn into(name: &'static str, of: &'static Type) -> Field {
    Field { name, merge: Merge::Default, of }
}

const METADATA: Field = into("metadata", &OBJECT_META);
const CONDITIONS: Field = keyed("conditions", "type", &LEAF);

static OBJECT_META: Type = Type {
    definition: "apimachinery.pkg.apis.meta.v1.ObjectMeta",
    fields: &[keyed("ownerReferences", "uid", &LEAF), set("finalizers")],
};

const CONTAINER_FIELDS: &[Field] = &[
    keyed("env", "name", &LEAF),
    keyed("ports", "containerPort", &LEAF),
    keyed("volumeMounts", "mountPath", &LEAF),
    keyed("volumeDevices", "devicePath", &LEAF),
];
static CONTAINER: Type = Type { definition: "api.core.v1.Container", fields: CONTAINER_FIELDS };
static EPHEMERAL: Type = Type { definition: "api.core.v1.EphemeralContainer", fields: CONTAINER_FIELDS };

static POD_SPEC: Type = Type {
    definition: "api.core.v1.PodSpec",
    fields: &[
        keyed("containers", "name", &CONTAINER),
        keyed("initContainers", "name", &CONTAINER),
        keyed("ephemeralContainers", "name", &EPHEMERAL),
        retain("volumes", "name"),
        retain("resourceClaims", "name"),
        keyed("imagePullSecrets", "name", &LEAF),
        keyed("hostAliases", "ip", &LEAF),
        keyed("topologySpreadConstraints", "topologyKey", &LEAF),
        keyed("schedulingGates", "name", &LEAF),
    ],
};
static POD_STATUS: Type = Type {
    definition: "api.core.v1.PodStatus",
    fields: &[
        CONDITIONS,
        keyed("podIPs", "ip", &LEAF),
        keyed("hostIPs", "ip", &LEAF),
        retain("resourceClaimStatuses", "name"),
    ],
};
static POD_TEMPLATE: Type =
    Type { definition: "api.core.v1.PodTemplateSpec", fields: &[METADATA, into("spec", &POD_SPEC)] };
static NODE_SPEC: Type = Type { definition: "api.core.v1.NodeSpec", fields: &[set("podCIDRs")] };
static NODE_STATUS: Type =
    Type { definition: "api.core.v1.NodeStatus", fields: &[CONDITIONS, keyed("addresses", "type", &LEAF)] };
static SERVICE_SPEC: Type =
    Type { definition: "api.core.v1.ServiceSpec", fields: &[keyed("ports", "port", &LEAF)] };
static DEPLOYMENT_SPEC: Type = Type {
    definition: "api.apps.v1.DeploymentSpec",
    fields: &[into("template", &POD_TEMPLATE), Field { name: "strategy", merge: Merge::Retain, of: &LEAF }],
};
static JOB_TEMPLATE: Type =
    Type { definition: "api.batch.v1.JobTemplateSpec", fields: &[METADATA, into("spec", &JOB_SPEC)] };
static JOB_SPEC: Type =
    Type { definition: "api.batch.v1.JobSpec", fields: &[into("template", &POD_TEMPLATE)] };

/// A type whose status has mergeable conditions and nothing else.
macro_rules! with_conditions {
    ($($name:ident = $definition:literal;)*) => {
        $(static $name: Type = Type { definition: $definition, fields: &[CONDITIONS] };)*
    };
}
with_conditions! {
    NAMESPACE_STATUS = "api.core.v1.NamespaceStatus";
    SERVICE_STATUS = "api.core.v1.ServiceStatus";
    CLAIM_STATUS = "api.core.v1.PersistentVolumeClaimStatus";
    CONTROLLER_STATUS = "api.core.v1.ReplicationControllerStatus";
    REPLICA_SET_STATUS = "api.apps.v1.ReplicaSetStatus";
    DEPLOYMENT_STATUS = "api.apps.v1.DeploymentStatus";
    DAEMON_SET_STATUS = "api.apps.v1.DaemonSetStatus";
    STATEFUL_SET_STATUS = "api.apps.v1.StatefulSetStatus";
    JOB_STATUS = "api.batch.v1.JobStatus";
    BUDGET_STATUS = "api.policy.v1.PodDisruptionBudgetStatus";
    AUTOSCALER_STATUS = "api.autoscaling.v2.HorizontalPodAutoscalerStatus";
    API_SERVICE_STATUS = "kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus";
}

/// A workload's spec: nothing but its template.
macro_rules! with_template {
    ($($name:ident = $definition:literal;)*) => {
        $(static $name: Type = Type { definition: $definition, fields: &[into("template", &POD_TEMPLATE)] };)*
    };
}
with_template! {
    CONTROLLER_SPEC = "api.core.v1.ReplicationControllerSpec";
    REPLICA_SET_SPEC = "api.apps.v1.ReplicaSetSpec";
    DAEMON_SET_SPEC = "api.apps.v1.DaemonSetSpec";
    STATEFUL_SET_SPEC = "api.apps.v1.StatefulSetSpec";
}

static CRON_JOB_SPEC: Type =
    Type { definition: "api.batch.v1.CronJobSpec", fields: &[into("jobTemplate", &JOB_TEMPLATE)] };
static BUDGET_SPEC: Type = Type {
    definition: "api.policy.v1.PodDisruptionBudgetSpec",
    fields: &[Field { name: "selector", merge: Merge::Replace, of: &LEAF }],
};
static CSI_NODE_SPEC: Type =
    Type { definition: "api.storage.v1.CSINodeSpec", fields: &[keyed("drivers", "name", &LEAF)] };
static WEBHOOK: Type = Type {
    definition: "api.admissionregistration.v1.ValidatingWebhook",
    fields: &[keyed("matchConditions", "name", &LEAF)],
};
static MUTATING_WEBHOOK: Type = Type {
    definition: "api.admissionregistration.v1.MutatingWebhook",
    fields: &[keyed("matchConditions", "name", &LEAF)],
};
static ADMISSION_POLICY_SPEC: Type = Type {
    definition: "api.admissionregistration.v1.ValidatingAdmissionPolicySpec",
    fields: &[keyed("matchConditions", "name", &LEAF), keyed("variables", "name", &LEAF)],
};

/// A kind with a spec and a status.
macro_rules! kinds {
    ($($name:ident = $definition:literal, $spec:ident, $status:ident;)*) => {
        $(static $name: Type = Type {
            definition: $definition,
            fields: &[METADATA, into("spec", &$spec), into("status", &$status)],
        };)*
    };
}
kinds! {
    POD = "api.core.v1.Pod", POD_SPEC, POD_STATUS;
    NODE = "api.core.v1.Node", NODE_SPEC, NODE_STATUS;
    NAMESPACE = "api.core.v1.Namespace", LEAF, NAMESPACE_STATUS;
    SERVICE = "api.core.v1.Service", SERVICE_SPEC, SERVICE_STATUS;
    CLAIM = "api.core.v1.PersistentVolumeClaim", LEAF, CLAIM_STATUS;
    CONTROLLER = "api.core.v1.ReplicationController", CONTROLLER_SPEC, CONTROLLER_STATUS;
    REPLICA_SET = "api.apps.v1.ReplicaSet", REPLICA_SET_SPEC, REPLICA_SET_STATUS;
    DEPLOYMENT = "api.apps.v1.Deployment", DEPLOYMENT_SPEC, DEPLOYMENT_STATUS;
    DAEMON_SET = "api.apps.v1.DaemonSet", DAEMON_SET_SPEC, DAEMON_SET_STATUS;
    STATEFUL_SET = "api.apps.v1.StatefulSet", STATEFUL_SET_SPEC, STATEFUL_SET_STATUS;
    JOB = "api.batch.v1.Job", JOB_SPEC, JOB_STATUS;
    CRON_JOB = "api.batch.v1.CronJob", CRON_JOB_SPEC, LEAF;
    BUDGET = "api.policy.v1.PodDisruptionBudget", BUDGET_SPEC, BUDGET_STATUS;
    AUTOSCALER = "api.autoscaling.v2.HorizontalPodAutoscaler", LEAF, AUTOSCALER_STATUS;
    CSI_NODE = "api.storage.v1.CSINode", CSI_NODE_SPEC, LEAF;
    ADMISSION_POLICY = "api.admissionregistration.v1.ValidatingAdmissionPolicy", ADMISSION_POLICY_SPEC, LEAF;
    API_SERVICE = "kube-aggregator.pkg.apis.apiregistration.v1.APIService", LEAF, API_SERVICE_STATUS;
}

static SERVICE_ACCOUNT: Type =
    Type { definition: "api.core.v1.ServiceAccount", fields: &[METADATA, keyed("secrets", "name", &LEAF)] };
static VALIDATING: Type = Type {
    definition: "api.admissionregistration.v1.ValidatingWebhookConfiguration",
    fields: &[METADATA, keyed("webhooks", "name", &WEBHOOK)],
};
static MUTATING: Type = Type {
    definition: "api.admissionregistration.v1.MutatingWebhookConfiguration",
    fields: &[METADATA, keyed("webhooks", "name", &MUTATING_WEBHOOK)],
};
static OTHER: Type = Type { definition: "", fields: &[METADATA] };

/// The patch type of a built-in kind; one without lists to merge has only its metadata's.
pub fn of_kind(group: &str, kind: &str) -> &'static Type {
    match (group, kind) {
        ("", "Pod") => &POD,
        ("", "PodTemplate") => &POD_TEMPLATE_KIND,
        ("", "Node") => &NODE,
        ("", "Namespace") => &NAMESPACE,
        ("", "Service") => &SERVICE,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("", "PersistentVolumeClaim") => &CLAIM,
        ("", "ReplicationController") => &CONTROLLER,
        ("apps", "ReplicaSet") => &REPLICA_SET,
        ("apps", "Deployment") => &DEPLOYMENT,
        ("apps", "DaemonSet") => &DAEMON_SET,
        ("apps", "StatefulSet") => &STATEFUL_SET,
        ("batch", "Job") => &JOB,
        ("batch", "CronJob") => &CRON_JOB,
        ("policy", "PodDisruptionBudget") => &BUDGET,
        ("autoscaling", "HorizontalPodAutoscaler") => &AUTOSCALER,
        ("storage.k8s.io", "CSINode") => &CSI_NODE,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => &ADMISSION_POLICY,
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => &VALIDATING,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => &MUTATING,
        ("apiregistration.k8s.io", "APIService") => &API_SERVICE,
        _ => &OTHER,
    }
}

static POD_TEMPLATE_KIND: Type =
    Type { definition: "api.core.v1.PodTemplate", fields: &[METADATA, into("template", &POD_TEMPLATE)] };

/// Every type with rows of its own, for the OpenAPI documents.
pub static TYPES: &[&Type] = &[
    &OBJECT_META,
    &CONTAINER,
    &EPHEMERAL,
    &POD_SPEC,
    &POD_STATUS,
    &NODE_SPEC,
    &NODE_STATUS,
    &SERVICE_SPEC,
    &DEPLOYMENT_SPEC,
    &BUDGET_SPEC,
    &CSI_NODE_SPEC,
    &WEBHOOK,
    &MUTATING_WEBHOOK,
    &ADMISSION_POLICY_SPEC,
    &NAMESPACE_STATUS,
    &SERVICE_STATUS,
    &CLAIM_STATUS,
    &CONTROLLER_STATUS,
    &REPLICA_SET_STATUS,
    &DEPLOYMENT_STATUS,
    &DAEMON_SET_STATUS,
    &STATEFUL_SET_STATUS,
    &JOB_STATUS,
    &BUDGET_STATUS,
    &AUTOSCALER_STATUS,
    &API_SERVICE_STATUS,
    &SERVICE_ACCOUNT,
    &VALIDATING,
    &MUTATING,
];
