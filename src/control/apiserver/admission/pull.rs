//! AlwaysPullImages: nobody starts an image from a node's cache without showing that they may pull it.

use serde_json::json;

use super::{Attributes, Operation};

pub(super) fn admit(write: &mut Attributes) {
    if write.operation == Operation::Delete
        || !(write.is("", "pods") || write.is("", "pods/ephemeralcontainers"))
    {
        return;
    }
    let Some(pod) = &mut write.object else { return };
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod["spec"].get_mut(kind).and_then(|list| list.as_array_mut()).into_iter().flatten()
        {
            container["imagePullPolicy"] = json!("Always");
        }
    }
}
