//! Hands a write to admission, which may change the object or refuse it.

use serde_json::Value;

use super::meta;
use crate::api::status::Result;
use crate::control::apiserver::admission::{Attributes, Operation};
use crate::control::apiserver::call::Call;
use crate::control::apiserver::registry::Resource;

/// Admits a write of `object` (none for a deletion) over `old`; returns the object as admission leaves it.
pub async fn admit(
    call: &Call,
    row: &Resource,
    operation: Operation,
    object: Option<Value>,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Option<Value>> {
    let asked = call.asked();
    let name = match (&object, asked.name.as_str()) {
        (Some(object), "") => meta::text(object, "name").to_owned(),
        (_, name) => name.to_owned(),
    };
    let mut attributes = Attributes {
        user: call.user.clone(),
        operation,
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        kind: row.kind.to_owned(),
        resource: row.plural.to_owned(),
        subresource: asked.subresource.clone(),
        namespace: if row.namespaced { asked.namespace.clone() } else { String::new() },
        name,
        object,
        old: old.cloned(),
        dry_run,
        annotations: Vec::new(),
        warnings: Vec::new(),
    };
    let outcome = call.api.admission.admit(&mut attributes).await;
    for (key, value) in &attributes.annotations {
        call.notes.annotate(key, value);
    }
    attributes.warnings.drain(..).for_each(|warning| call.notes.warn(warning));
    outcome.map(|()| attributes.object)
}
