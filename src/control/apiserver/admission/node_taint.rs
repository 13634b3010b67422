//! TaintNodesByCondition: a new node takes no pods until the node lifecycle controller finds it ready.

use serde_json::{Value, json};

use super::service_account::push;
use super::{Attributes, Operation, list};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) fn admit(write: &mut Attributes) {
    if !write.is("", "nodes") || write.operation != Operation::Create {
        return;
    }
    let Some(node) = &mut write.object else { return };
    let same = |taint: &Value| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule";
    if !list(&node["spec"]["taints"]).iter().any(same) {
        push(&mut node["spec"], "taints", json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}
