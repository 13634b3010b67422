//! What extends the server: users' own kinds, and admission by others.

use k8s_openapi::api::admissionregistration::v1 as admission;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as aggregator;

use super::{Resource, STATUS_ONLY, row};

pub fn rows() -> Vec<Resource> {
    vec![
        row::<aggregator::APIService>("apiservices", "apiservice", "APIServiceList")
            .in_category()
            .cluster()
            .bucket("/registry/apiregistration.k8s.io/apiservices/")
            .with(STATUS_ONLY),
        row::<admission::MutatingAdmissionPolicy>(
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicy",
            "MutatingAdmissionPolicyList",
        )
        .in_category()
        .cluster(),
        row::<admission::MutatingAdmissionPolicyBinding>(
            "mutatingadmissionpolicybindings",
            "mutatingadmissionpolicybinding",
            "MutatingAdmissionPolicyBindingList",
        )
        .in_category()
        .cluster(),
        row::<admission::MutatingWebhookConfiguration>(
            "mutatingwebhookconfigurations",
            "mutatingwebhookconfiguration",
            "MutatingWebhookConfigurationList",
        )
        .in_category()
        .cluster(),
        row::<admission::ValidatingWebhookConfiguration>(
            "validatingwebhookconfigurations",
            "validatingwebhookconfiguration",
            "ValidatingWebhookConfigurationList",
        )
        .in_category()
        .cluster(),
        row::<admission::ValidatingAdmissionPolicy>(
            "validatingadmissionpolicies",
            "validatingadmissionpolicy",
            "ValidatingAdmissionPolicyList",
        )
        .in_category()
        .cluster()
        .with(STATUS_ONLY),
        row::<admission::ValidatingAdmissionPolicyBinding>(
            "validatingadmissionpolicybindings",
            "validatingadmissionpolicybinding",
            "ValidatingAdmissionPolicyBindingList",
        )
        .in_category()
        .cluster(),
        row::<extensions::CustomResourceDefinition>(
            "customresourcedefinitions",
            "customresourcedefinition",
            "CustomResourceDefinitionList",
        )
        .short(&["crd", "crds"])
        .in_category()
        .cluster()
        .bucket("/registry/apiextensions.k8s.io/customresourcedefinitions/")
        .with(STATUS_ONLY),
    ]
}
