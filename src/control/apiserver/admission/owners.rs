//! OwnerReferencesPermissionEnforcement: who ties an object to an owner must be able to delete it, and who
//! blocks the owner's deletion must be able to set the owner's finalizers.

use serde_json::Value;

use super::{Attributes, Context, Operation, list};
use crate::api::status::Result;
use crate::control::apiserver::lookup::text;
use crate::control::apiserver::registry;
use crate::control::apiserver::request::{RequestInfo, ResourceRequest};

pub(super) async fn admit(context: &Context, write: &Attributes) -> Result<()> {
    let Some(object) = write.object.as_ref().filter(|_| write.operation != Operation::Delete) else {
        return Ok(());
    };
    let owners = |object: &Value| list(&object["metadata"]["ownerReferences"]).to_vec();
    let (new, old) = (owners(object), write.old.as_ref().map(owners).unwrap_or_default());
    if write.operation == Operation::Update && new != old {
        let own = ask(write, "delete", &write.group, &write.resource, &write.namespace, &write.name, "");
        if !context.authorizer.authorize(&write.user, &own).await.is_allowed() {
            return Err(write.forbidden("cannot set an ownerRef on a resource you can't delete: "));
        }
    }
    let blocks = |owner: &Value| owner["blockOwnerDeletion"] == true;
    let same = |owner: &Value, other: &Value| owner["uid"] == other["uid"] && blocks(other);
    for owner in new.iter().filter(|owner| blocks(owner)) {
        if old.iter().any(|other| same(owner, other)) {
            continue;
        }
        let (group, version) =
            text(owner, "/apiVersion").split_once('/').unwrap_or(("", text(owner, "/apiVersion")));
        let kind = text(owner, "/kind");
        let found = registry::all()
            .iter()
            .find(|row| row.group == group && row.version == version && row.kind == kind);
        let Some(row) = found else {
            return Err(write.forbidden(format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {kind}",
                text(owner, "/apiVersion")
            )));
        };
        let namespace = if row.namespaced { write.namespace.as_str() } else { "" };
        let finalizers =
            ask(write, "update", group, row.plural, namespace, text(owner, "/name"), "finalizers");
        if !context.authorizer.authorize(&write.user, &finalizers).await.is_allowed() {
            let why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: ";
            return Err(write.forbidden(why));
        }
    }
    Ok(())
}

fn ask(
    write: &Attributes,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    subresource: &str,
) -> RequestInfo {
    let resource = ResourceRequest {
        group: group.into(),
        version: write.version.clone(),
        namespace: namespace.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        ..ResourceRequest::default()
    };
    RequestInfo { verb: verb.into(), path: String::new(), resource: Some(resource) }
}
