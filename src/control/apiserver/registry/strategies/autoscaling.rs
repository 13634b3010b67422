//! HorizontalPodAutoscalers.

use serde_json::json;

use super::super::Strategy;
use super::PLAIN;
use super::edit::{copy, default, existing, map, set};
use crate::control::apiserver::table::autoscaling as table;
use crate::control::apiserver::validation::autoscaling as validation;
use crate::control::apiserver::versions::autoscaler::{keep_status, to_v2};

pub static AUTOSCALER: Strategy = Strategy {
    default: |object| {
        let Some(spec) = map(object, "spec") else { return };
        default(spec, "minReplicas", 1);
        if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
            let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}});
            set(spec, "metrics", json!([cpu]));
        }
        let Some(behavior) = existing(spec, "behavior") else { return };
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        for (direction, policies, window) in
            [("scaleUp", json!([pods, percent.clone()]), Some(0)), ("scaleDown", json!([percent]), None)]
        {
            let Some(rules) = map(behavior, direction) else { continue };
            default(rules, "selectPolicy", "Max");
            if let Some(window) = window {
                default(rules, "stabilizationWindowSeconds", window);
            }
            if rules["policies"].as_array().is_none_or(Vec::is_empty) {
                set(rules, "policies", policies);
            }
        }
    },
    validate: validation::autoscaler,
    prepare_create: |object| set(object, "status", json!({"desiredReplicas": 0, "currentMetrics": null})),
    prepare_update: |object, old| copy(object, old, "status"),
    columns: table::AUTOSCALER,
    row: table::autoscaler,
    ..PLAIN
};

/// The same as `autoscaling/v1`, judged as what is kept of it.
pub static AUTOSCALER_V1: Strategy = Strategy {
    default: |object| {
        if let Some(spec) = map(object, "spec") {
            default(spec, "minReplicas", 1);
        }
    },
    validate: |object, old| validation::autoscaler(&to_v2(object.clone()), old),
    prepare_create: |object| set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0})),
    prepare_update: |object, old| {
        copy(object, old, "status");
        keep_status(object, old);
    },
    columns: table::AUTOSCALER,
    row: |object, now| table::autoscaler(&to_v2(object.clone()), now),
    ..PLAIN
};
