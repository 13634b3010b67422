//! DefaultTolerationSeconds: a pod outlives its node's silence by five minutes unless it says otherwise.

use serde_json::{Value, json};

use super::service_account::push;
use super::{Attributes, Context, Operation, list};

pub(super) fn admit(context: &Context, write: &mut Attributes) {
    if !write.is("", "pods") || write.operation == Operation::Delete {
        return;
    }
    let Some(pod) = &mut write.object else { return };
    for (key, seconds) in [
        ("node.kubernetes.io/not-ready", context.not_ready_seconds),
        ("node.kubernetes.io/unreachable", context.unreachable_seconds),
    ] {
        if !list(&pod["spec"]["tolerations"]).iter().any(|toleration| tolerates(toleration, key)) {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
            push(&mut pod["spec"], "tolerations", toleration);
        }
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let empty_or = |field: &str, wanted: &str| {
        matches!(toleration[field].as_str(), None | Some("")) || toleration[field] == wanted
    };
    empty_or("key", key) && empty_or("effect", "NoExecute")
}
