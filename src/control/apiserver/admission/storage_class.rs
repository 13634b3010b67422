//! DefaultStorageClass: a claim that names no class gets the one that is marked, the newest of several.

use serde_json::{Value, json};

use super::{Attributes, Context, Operation};
use crate::control::apiserver::table::storage::DEFAULT_CLASS;
use crate::control::apiserver::{encode, lookup, registry};

pub(super) fn admit(context: &Context, write: &mut Attributes) {
    if !write.is("", "persistentvolumeclaims") || write.operation != Operation::Create {
        return;
    }
    let Some(claim) = write.object.as_mut().filter(|claim| claim["spec"]["storageClassName"].is_null())
    else {
        return;
    };
    // A claim for a volume by name, or by the old annotation, has chosen already.
    let old = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    if old.is_null()
        && let Some(name) = default_class(context)
        && claim["spec"].is_object()
    {
        claim["spec"]["storageClassName"] = json!(name);
    }
}

fn default_class(context: &Context) -> Option<String> {
    let row = registry::by_name("storage.k8s.io", "storageclasses")?;
    let page = context.store.list(&row.bucket, "", None, None, None).ok()?;
    let classes = page.entries.iter().filter_map(|entry| encode::object(entry).ok());
    let marked = classes.filter(|class: &Value| class["metadata"]["annotations"][DEFAULT_CLASS] == "true");
    let newest = marked.max_by_key(|class| lookup::text(class, "/metadata/creationTimestamp").to_owned())?;
    newest["metadata"]["name"].as_str().map(str::to_owned)
}
