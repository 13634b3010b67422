//! PodDisruptionBudgets (`pkg/apis/policy/validation`).

use serde_json::Value;

use super::{metadata, one_of, share};
use crate::api::names;
use crate::api::status::Cause;

pub fn budget(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        causes.push(Cause::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        share(&mut causes, &spec[field], &format!("spec.{field}"));
    }
    metadata::selector(&mut causes, &spec["selector"], "spec.selector");
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    one_of(&mut causes, spec, "unhealthyPodEvictionPolicy", "spec", &policies);
    causes
}
