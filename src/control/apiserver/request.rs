//! What a request asks for, read from its method, path and query alone
//! (`k8s.io/apiserver/pkg/endpoints/request`).

/// One request, taken apart. Authorization, admission, audit and the handlers all read this value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestInfo {
    /// `get list watch create update patch delete deletecollection`; for other paths the method in lower case.
    pub verb: String,
    pub path: String,
    /// Set when the path names a resource.
    pub resource: Option<ResourceRequest>,
}

/// The resource half of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceRequest {
    pub group: String,
    pub version: String,
    /// Empty for cluster scope and across all namespaces.
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The path below a subresource that has one (`proxy`).
    pub rest: String,
    /// As sent, for authorizers and handlers.
    pub field_selector: String,
    pub label_selector: String,
}
