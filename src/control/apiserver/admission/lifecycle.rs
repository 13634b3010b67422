//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is going away.

use serde_json::json;

use super::{Attributes, Context, Operation};
use crate::api::status::{Result, Status};
use crate::control::apiserver::lookup;

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) fn admit(context: &Context, write: &Attributes) -> Result<()> {
    if write.is("", "namespaces")
        && write.operation == Operation::Delete
        && IMMORTAL.contains(&write.name.as_str())
    {
        return Err(write.forbidden("this namespace may not be deleted"));
    }
    let namespace = write.namespace.as_str();
    let exempt = write.resource == "namespaces"
        || write.resource == "localsubjectaccessreviews"
        || write.operation == Operation::Delete;
    if namespace.is_empty() || exempt {
        return Ok(());
    }
    let Some(found) = lookup::object(&context.store, "", "namespaces", "", namespace) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if write.operation != Operation::Create || lookup::text(&found, "/status/phase") != "Terminating" {
        return Ok(());
    }
    let mut refusal = write.forbidden(format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    ));
    if let Some(details) = &mut refusal.details {
        details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
    }
    Err(refusal)
}
