//! HorizontalPodAutoscalers in `autoscaling/v1`, kept as `autoscaling/v2` (`pkg/apis/autoscaling/v1/conversion.go`).
//!
//! `v1` knows one metric, the processor's; whatever else there is goes along in annotations.

use serde_json::{Map, Value, json};

use super::Form;

pub static V1: Form = Form { group: "autoscaling", version: "v2", presented: to_v1, stored: to_v2 };

/// Where `v1` keeps what it has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Whether a metric is the one that `v1` knows.
fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn move_out(annotations: &mut Map<String, Value>, name: &str, value: &Value) {
    let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if !empty {
        annotations.insert(name.to_owned(), json!(value.to_string()));
    }
}

fn move_in(object: &mut Value, name: &str) -> Value {
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let text = annotations.and_then(|annotations| annotations.remove(name));
    text.as_ref().and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// `autoscaling/v2` as `autoscaling/v1`; what is that already stays.
pub fn to_v1(mut object: Value) -> Value {
    if object["apiVersion"] == "autoscaling/v1" || !object["metadata"].is_object() {
        return object;
    }
    object["apiVersion"] = json!("autoscaling/v1");
    let mut annotations = object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let metrics = object["spec"]["metrics"].as_array().cloned().unwrap_or_default();
    let (cpu, others): (Vec<Value>, Vec<Value>) = metrics
        .into_iter()
        .partition(|one| is_cpu(one) && one["resource"]["target"]["averageUtilization"].is_i64());
    move_out(&mut annotations, METRICS, &Value::Array(others));
    move_out(&mut annotations, BEHAVIOR, &object["spec"]["behavior"]);
    let current = object["status"]["currentMetrics"].as_array().cloned().unwrap_or_default();
    let used = current
        .iter()
        .find(|one| is_cpu(one))
        .map(|one| one["resource"]["current"]["averageUtilization"].clone());
    move_out(&mut annotations, CURRENT, &object["status"]["currentMetrics"]);
    move_out(&mut annotations, CONDITIONS, &object["status"]["conditions"]);
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("metrics");
        spec.remove("behavior");
        if let Some(cpu) = cpu.first() {
            let target = cpu["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".to_owned(), target);
        }
    }
    if let Some(status) = object["status"].as_object_mut() {
        status.remove("currentMetrics");
        status.remove("conditions");
        if let Some(used) = used.filter(|used| !used.is_null()) {
            status.insert("currentCPUUtilizationPercentage".to_owned(), used);
        }
    }
    if !annotations.is_empty() {
        object["metadata"]["annotations"] = Value::Object(annotations);
    }
    object
}

/// `autoscaling/v1` as `autoscaling/v2`.
pub fn to_v2(mut object: Value) -> Value {
    if object["apiVersion"] == "autoscaling/v2" || !object.is_object() {
        return object;
    }
    object["apiVersion"] = json!("autoscaling/v2");
    let (others, behavior) = (move_in(&mut object, METRICS), move_in(&mut object, BEHAVIOR));
    let (current, conditions) = (move_in(&mut object, CURRENT), move_in(&mut object, CONDITIONS));
    let mut metrics = others.as_array().cloned().unwrap_or_default();
    if let Some(spec) = object["spec"].as_object_mut() {
        if let Some(target) = spec.remove("targetCPUUtilizationPercentage").filter(|target| !target.is_null())
        {
            metrics.insert(
                0,
                json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": target}}}),
            );
        }
        if metrics.is_empty() {
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}));
        }
        spec.insert("metrics".to_owned(), Value::Array(metrics));
        if behavior.is_object() {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = object["status"].as_object_mut() {
        status.remove("currentCPUUtilizationPercentage");
        for (field, value) in [("currentMetrics", current), ("conditions", conditions)] {
            if value.is_array() {
                status.insert(field.to_owned(), value);
            }
        }
    }
    object
}

/// What an ordinary update may not change: in `v1` part of the status is in annotations.
pub fn keep_status(object: &mut Value, old: &Value) {
    for name in [CURRENT, CONDITIONS] {
        let kept = old["metadata"]["annotations"].get(name).cloned();
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        if let (Some(kept), Some(own)) =
            (kept, metadata.entry("annotations").or_insert_with(|| json!({})).as_object_mut())
        {
            own.insert(name.to_owned(), kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_survives_the_way_there_and_back() {
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let kept = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a", "annotations": {"x": "y"}},
            "spec": {"maxReplicas": 3, "metrics": [cpu, memory]}, "status": {"currentReplicas": 1}});
        let v1 = to_v1(kept.clone());
        assert_eq!(v1["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(to_v2(v1), kept);
    }
}
