//! Aggregated API servers: group versions that another server answers for (`k8s.io/kube-aggregator`).
//!
//! Every group version has an APIService. A local one is answered here; one that names a service is passed on to it
//! (`proxy/aggregated.rs`) with the caller's name in headers and the front proxy's certificate to vouch for them.
//! Left out on purpose: `v1.` as somebody else's (the core group is always local).

pub mod definition;
mod health;
pub mod keep;
pub mod priority;
mod remote;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use super::request::RequestInfo;
use crate::net::Identity;

pub use remote::Remote;

pub const GROUP: &str = "apiregistration.k8s.io";
pub const PLURAL: &str = "apiservices";

/// Who this server is to those it passes requests on to.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AggregatorFlags {
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
}

impl AggregatorFlags {
    /// The certificate of the front proxy, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn identity(&self) -> std::io::Result<Option<Identity>> {
        let (Some(cert), Some(key)) = (&self.proxy_client_cert_file, &self.proxy_client_key_file) else {
            return Ok(None);
        };
        Ok(Some(Identity { cert_pem: std::fs::read(cert)?, key_pem: std::fs::read(key)? }))
    }
}

static REMOTES: RwLock<Vec<Arc<Remote>>> = RwLock::new(Vec::new());

/// The group versions that others answer for, as last looked at.
pub fn remotes() -> Vec<Arc<Remote>> {
    REMOTES.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn replace(remotes: Vec<Arc<Remote>>) {
    *REMOTES.write().unwrap_or_else(PoisonError::into_inner) = remotes;
}

/// Who answers a request instead of this server.
pub fn of(info: &RequestInfo) -> Option<Arc<Remote>> {
    let parts: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, described) = match parts.as_slice() {
        ["apis", group, version, ..] => (*group, *version, false),
        ["openapi", "v3", "apis", group, version] => (*group, *version, true),
        _ => return None,
    };
    let remotes = REMOTES.read().unwrap_or_else(PoisonError::into_inner);
    let found = remotes.iter().find(|remote| remote.group == group && remote.version == version)?;
    (!described || found.described.is_some()).then(|| Arc::clone(found))
}

/// The object as discovery shows a resource of another server, from its plain form (`APIResource`).
pub fn discovered(remote: &Remote) -> Value {
    let list = remote.resources["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = |one: &Value| {
        let or = |field: &str, own: &str| match text(&one[field]) {
            empty if empty.is_empty() => own.to_owned(),
            said => said,
        };
        serde_json::json!({"group": or("group", &remote.group), "version": or("version", &remote.version),
            "kind": one["kind"]})
    };
    let below = |name: &str| -> Vec<Value> {
        let prefix = format!("{name}/");
        let own =
            list.iter().filter_map(|one| Some((text(&one["name"]).strip_prefix(&prefix)?.to_owned(), one)));
        own.map(|(name, one)| {
            serde_json::json!({"subresource": name, "responseKind": kind(one), "verbs": one["verbs"]})
        })
        .collect()
    };
    let whole = list.iter().filter(|one| !text(&one["name"]).contains('/'));
    let resources = whole.map(|one| {
        let name = text(&one["name"]);
        let mut body = serde_json::json!({
            "resource": name, "responseKind": kind(one), "singularResource": one["singularName"],
            "scope": if one["namespaced"] == true { "Namespaced" } else { "Cluster" }, "verbs": one["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if one[field].is_array() {
                body[field] = one[field].clone();
            }
        }
        let below = below(&name);
        if !below.is_empty() {
            body["subresources"] = below.into();
        }
        body
    });
    resources.collect::<Vec<Value>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn anothers_resources_are_shown_as_our_own() {
        let resources = json!({"resources": [
            {"name": "cows", "singularName": "cow", "namespaced": true, "kind": "Cow", "verbs": ["get"], "shortNames": ["c"]},
            {"name": "cows/scale", "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        let remote = Remote::of(
            &json!({"spec": {"group": "farm.io", "version": "v1", "service": {}}}),
            None,
            resources,
        );
        let shown = discovered(&remote);
        assert_eq!(shown[0]["responseKind"], json!({"group": "farm.io", "version": "v1", "kind": "Cow"}));
        assert_eq!(shown[0]["subresources"][0]["responseKind"]["group"], "autoscaling");
        assert_eq!(shown.as_array().unwrap().len(), 1);
    }
}
