//! The rows themselves, one a resource, in the order of upstream's discovery.

mod extensions;
mod infrastructure;
mod metrics;
mod workloads;

use k8s_openapi::api::{
    authentication::v1 as authentication, authorization::v1 as authorization,
    certificates::v1 as certificates, core::v1 as core, events::v1 as events, rbac::v1 as rbac,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Resource, Subresource, strategies};
use crate::control::apiserver::versions::{self, Form};

const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Namespaces and Services (the latter only until 1.23 upstream) cannot be deleted as a collection.
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const READ: &[&str] = &["get", "list"];
const CHANGE: &[&str] = &["get", "patch", "update"];

const STATUS: Subresource = own("status", "", CHANGE);
const SCALE: Subresource =
    Subresource { name: "scale", kind: "Scale", group: "autoscaling", version: "v1", verbs: CHANGE };

/// A subresource in its parent's group; an empty kind is the parent's own.
const fn own(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Subresource {
    Subresource { name, kind, group: "", version: "", verbs }
}

/// The typed round trip of one kind.
pub fn typed<T: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, String> {
    let read = T::deserialize(object).map_err(|error| error.to_string())?;
    serde_json::to_value(read).map_err(|error| error.to_string())
}

/// A row with what most have; builders below set the rest.
fn row<T: k8s_openapi::Resource + Serialize + DeserializeOwned + schemars::JsonSchema>(
    plural: &'static str,
    singular: &'static str,
    list_kind: &'static str,
) -> Resource {
    let bucket = match (T::GROUP, plural) {
        ("", "nodes") => "/registry/minions/".to_owned(),
        ("", "services") => "/registry/services/specs/".to_owned(),
        ("", "endpoints") => "/registry/services/endpoints/".to_owned(),
        _ => format!("/registry/{plural}/"),
    };
    Resource {
        group: T::GROUP,
        version: T::VERSION,
        kind: T::KIND,
        list_kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL_VERBS,
        subresources: &[],
        create_on_update: false,
        returns_deleted: false,
        decode: typed::<T>,
        strategy: strategies::of(T::GROUP, plural),
        schema: schemars::SchemaGenerator::subschema_for::<T>,
        bucket,
        shape: std::sync::OnceLock::new(),
        form: None,
        custom: None,
    }
}

impl Resource {
    fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    fn in_category(mut self) -> Self {
        self.categories = &["api-extensions"];
        self
    }

    fn bucket(mut self, bucket: &str) -> Self {
        bucket.clone_into(&mut self.bucket);
        self
    }

    /// A second version of a kind that is kept in another.
    fn kept_as(mut self, form: &'static Form) -> Self {
        self.form = Some(form);
        self.strategy = strategies::second(self.group);
        self
    }

    fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.verbs = verbs;
        self
    }

    fn with(mut self, subresources: &'static [Subresource]) -> Self {
        self.subresources = subresources;
        self
    }

    fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }
}

pub(super) fn table() -> Vec<Resource> {
    let mut rows = core_rows();
    rows.extend(workloads::rows());
    rows.extend(infrastructure::rows());
    rows.extend(metrics::rows());
    rows.push(
        row::<events::Event>("events", "event", "EventList")
            .short(&["ev"])
            .create_on_update()
            .kept_as(&versions::event::EVENTS),
    );
    rows.extend(access_rows());
    rows.extend(extensions::rows());
    rows
}

/// Streams and proxies: GET, POST and the like as verbs (`rest.Connecter`).
const CONNECT: &[&str] = &["create", "get"];
const PASS_ON: &[&str] = &["create", "delete", "get", "patch", "update"];

const POD: &[Subresource] = &[
    own("attach", "PodAttachOptions", CONNECT),
    own("binding", "Binding", CREATE),
    own("ephemeralcontainers", "", CHANGE),
    Subresource { name: "eviction", kind: "Eviction", group: "policy", version: "v1", verbs: CREATE },
    own("exec", "PodExecOptions", CONNECT),
    own("log", "", &["get"]),
    own("portforward", "PodPortForwardOptions", CONNECT),
    own("proxy", "PodProxyOptions", PASS_ON),
    STATUS,
];
const NODE: &[Subresource] = &[own("proxy", "NodeProxyOptions", PASS_ON), STATUS];
const SERVICE: &[Subresource] = &[own("proxy", "ServiceProxyOptions", PASS_ON), STATUS];
const NAMESPACE: &[Subresource] = &[own("finalize", "", &["update"]), STATUS];
const STATUS_ONLY: &[Subresource] = &[STATUS];
const SCALABLE: &[Subresource] = &[SCALE, STATUS];
const REQUEST: &[Subresource] = &[own("approval", "", CHANGE), STATUS];
const SERVICE_ACCOUNT: &[Subresource] = &[Subresource {
    name: "token",
    kind: "TokenRequest",
    group: "authentication.k8s.io",
    version: "v1",
    verbs: CREATE,
}];

fn core_rows() -> Vec<Resource> {
    vec![
        row::<core::Binding>("bindings", "binding", "").verbs(CREATE),
        row::<core::ComponentStatus>("componentstatuses", "componentstatus", "ComponentStatusList")
            .short(&["cs"])
            .cluster()
            .verbs(READ),
        row::<core::ConfigMap>("configmaps", "configmap", "ConfigMapList").short(&["cm"]),
        row::<core::Endpoints>("endpoints", "endpoints", "EndpointsList").short(&["ep"]).create_on_update(),
        row::<core::Event>("events", "event", "EventList").short(&["ev"]).create_on_update(),
        row::<core::LimitRange>("limitranges", "limitrange", "LimitRangeList")
            .short(&["limits"])
            .create_on_update()
            .returns_deleted(),
        row::<core::Namespace>("namespaces", "namespace", "NamespaceList")
            .short(&["ns"])
            .cluster()
            .verbs(NO_COLLECTION)
            .with(NAMESPACE),
        row::<core::Node>("nodes", "node", "NodeList").short(&["no"]).cluster().with(NODE),
        row::<core::PersistentVolumeClaim>(
            "persistentvolumeclaims",
            "persistentvolumeclaim",
            "PersistentVolumeClaimList",
        )
        .short(&["pvc"])
        .returns_deleted()
        .with(STATUS_ONLY),
        row::<core::PersistentVolume>("persistentvolumes", "persistentvolume", "PersistentVolumeList")
            .short(&["pv"])
            .cluster()
            .returns_deleted()
            .with(STATUS_ONLY),
        row::<core::Pod>("pods", "pod", "PodList").short(&["po"]).in_all().returns_deleted().with(POD),
        row::<core::PodTemplate>("podtemplates", "podtemplate", "PodTemplateList")
            .create_on_update()
            .returns_deleted(),
        row::<core::ReplicationController>(
            "replicationcontrollers",
            "replicationcontroller",
            "ReplicationControllerList",
        )
        .short(&["rc"])
        .in_all()
        .with(SCALABLE),
        row::<core::ResourceQuota>("resourcequotas", "resourcequota", "ResourceQuotaList")
            .short(&["quota"])
            .returns_deleted()
            .with(STATUS_ONLY),
        row::<core::Secret>("secrets", "secret", "SecretList"),
        row::<core::ServiceAccount>("serviceaccounts", "serviceaccount", "ServiceAccountList")
            .short(&["sa"])
            .returns_deleted()
            .with(SERVICE_ACCOUNT),
        row::<core::Service>("services", "service", "ServiceList")
            .short(&["svc"])
            .in_all()
            .create_on_update()
            .returns_deleted()
            .with(SERVICE),
    ]
}

fn access_rows() -> Vec<Resource> {
    vec![
        row::<authentication::SelfSubjectReview>("selfsubjectreviews", "selfsubjectreview", "")
            .cluster()
            .verbs(CREATE),
        row::<authentication::TokenReview>("tokenreviews", "tokenreview", "").cluster().verbs(CREATE),
        row::<authorization::LocalSubjectAccessReview>(
            "localsubjectaccessreviews",
            "localsubjectaccessreview",
            "",
        )
        .verbs(CREATE),
        row::<authorization::SelfSubjectAccessReview>(
            "selfsubjectaccessreviews",
            "selfsubjectaccessreview",
            "",
        )
        .cluster()
        .verbs(CREATE),
        row::<authorization::SelfSubjectRulesReview>("selfsubjectrulesreviews", "selfsubjectrulesreview", "")
            .cluster()
            .verbs(CREATE),
        row::<authorization::SubjectAccessReview>("subjectaccessreviews", "subjectaccessreview", "")
            .cluster()
            .verbs(CREATE),
        row::<certificates::CertificateSigningRequest>(
            "certificatesigningrequests",
            "certificatesigningrequest",
            "CertificateSigningRequestList",
        )
        .short(&["csr"])
        .cluster()
        .with(REQUEST),
        row::<rbac::ClusterRoleBinding>(
            "clusterrolebindings",
            "clusterrolebinding",
            "ClusterRoleBindingList",
        )
        .cluster()
        .create_on_update(),
        row::<rbac::ClusterRole>("clusterroles", "clusterrole", "ClusterRoleList")
            .cluster()
            .create_on_update(),
        row::<rbac::RoleBinding>("rolebindings", "rolebinding", "RoleBindingList").create_on_update(),
        row::<rbac::Role>("roles", "role", "RoleList").create_on_update(),
    ]
}
