//! Quality of service classes (`pkg/apis/core/v1/helper/qos`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Only root of the machine may set it; elsewhere such a container has the score of its shim.
const GUARANTEED: i32 = -997;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(spec: &PodSpec) -> &'static str {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        for resource in ["cpu", "memory"] {
            let (limit, request) = (amount(limits, resource), amount(requests, resource));
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// How soon the kernel ends a container when memory does (`pkg/kubelet/qos/policy.go`): the less of the machine
/// it asked for, the sooner.
pub fn oom_score(spec: &PodSpec, container: &Container, capacity: u64) -> i32 {
    match class(spec) {
        "Guaranteed" => GUARANTEED,
        "BestEffort" => 1000,
        _ => {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let asked = amount(requests, "memory").map_or(0, |milli| milli / 1000);
            let share = i64::try_from(capacity).ok().filter(|capacity| *capacity > 0);
            let share = share.map_or(0, |capacity| asked.saturating_mul(1000) / capacity);
            i32::try_from(1000 - share).unwrap_or(0).clamp(1000 + GUARANTEED, 999)
        }
    }
}

fn amount(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<i64> {
    let quantity = list?.get(resource)?;
    crate::api::quantity::Quantity::parse(&quantity.0)
        .ok()
        .map(|quantity| quantity.milli())
        .filter(|milli| *milli != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(resources: serde_json::Value) -> &'static str {
        class(
            &serde_json::from_value(json!({"containers": [{"name": "a", "resources": resources}]})).unwrap(),
        )
    }

    #[test]
    fn who_asked_for_more_memory_is_ended_later() {
        let score = |resources: serde_json::Value| {
            let spec: PodSpec =
                serde_json::from_value(json!({"containers": [{"name": "a", "resources": resources}]}))
                    .unwrap();
            oom_score(&spec, &spec.containers[0], 4 << 30)
        };
        assert_eq!(score(json!({})), 1000);
        assert_eq!(score(json!({"requests": {"memory": "1Gi"}})), 750);
        assert_eq!(score(json!({"requests": {"cpu": "1"}})), 999);
        assert_eq!(score(json!({"requests": {"memory": "8Gi"}})), 3);
        assert_eq!(score(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), -997);
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "100m"}})), "Burstable");
        assert_eq!(of(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
        assert_eq!(
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}})),
            "Guaranteed"
        );
        assert_eq!(
            of(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}})),
            "Burstable"
        );
    }
}
