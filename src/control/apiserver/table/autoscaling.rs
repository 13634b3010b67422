//! Tables of HorizontalPodAutoscalers and PodDisruptionBudgets.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, integer, items, number, string, text};
use crate::control::apiserver::registry::Column;

pub const AUTOSCALER: &[Column] = &[
    NAME,
    text(
        "Reference",
        "Reference points to the target resource to scale, is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
    ),
    text(
        "Targets",
        "Metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).",
    ),
    text(
        "MinPods",
        "MinReplicas is the lower limit for the number of pods that can be set by the autoscaler, default 1.",
    ),
    text(
        "MaxPods",
        "MaxReplicas is the upper limit for the number of pods that can be set by the autoscaler. It cannot be smaller than minReplicas.",
    ),
    integer(
        "Replicas",
        "DesiredReplicas is the desired number of replicas of pods managed by this autoscaler, as last calculated by the autoscaler.",
    ),
    AGE,
];

pub fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = &object["spec"]["scaleTargetRef"];
    let least = match object["spec"]["minReplicas"].as_i64() {
        Some(least) => least.to_string(),
        None => "<unset>".into(),
    };
    vec![
        cells::name(object),
        format!("{}/{}", string(target, "/kind"), string(target, "/name")).into(),
        targets(object).into(),
        least.into(),
        number(object, "/spec/maxReplicas").into(),
        number(object, "/status/currentReplicas").into(),
        cells::age(object, now),
    ]
}

/// What is and what is wanted, one a metric: `cpu: 12%/80%`.
fn targets(object: &Value) -> String {
    let current = items(object, "/status/currentMetrics");
    let all: Vec<String> = items(object, "/spec/metrics")
        .iter()
        .enumerate()
        .map(|(index, spec)| metric(spec, current.get(index).unwrap_or(&Value::Null)))
        .collect();
    match all.len() {
        0 => "<none>".into(),
        count if count > 2 => format!("{} + {} more...", all[..2].join(", "), count - 2),
        _ => all.join(", "),
    }
}

fn metric(spec: &Value, current: &Value) -> String {
    let (field, name) = match string(spec, "/type") {
        "Resource" => ("resource", "/name"),
        "ContainerResource" => ("containerResource", "/name"),
        "Pods" => ("pods", ""),
        "Object" => ("object", ""),
        "External" => ("external", ""),
        _ => return "<unknown type>".into(),
    };
    let (wanted, has) = (&spec[field]["target"], &current[field]["current"]);
    let percent = |value: &Value| value.as_i64().map(|number| format!("{number}%"));
    let amount = |value: &Value| value.as_str().map(str::to_owned);
    let (has, wanted) = match (amount(&wanted["averageValue"]), amount(&wanted["value"])) {
        (Some(average), _) => (amount(&has["averageValue"]), average),
        (None, Some(value)) => (amount(&has["value"]), value),
        (None, None) => (
            percent(&has["averageUtilization"]),
            percent(&wanted["averageUtilization"]).unwrap_or_else(|| "<auto>".into()),
        ),
    };
    let both = format!("{}/{wanted}", has.unwrap_or_else(|| "<unknown>".into()));
    match name {
        "" => both,
        _ => format!("{}: {both}", string(&spec[field], name)),
    }
}

pub const BUDGET: &[Column] = &[
    NAME,
    text("Min Available", "The minimum number of pods that must be available."),
    text("Max Unavailable", "The maximum number of pods that may be unavailable."),
    integer("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
    AGE,
];

pub fn budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let bound = |field: &str| match &object["spec"][field] {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "N/A".into(),
    };
    vec![
        cells::name(object),
        bound("minAvailable").into(),
        bound("maxUnavailable").into(),
        number(object, "/status/disruptionsAllowed").into(),
        cells::age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_say_what_is_and_what_is_wanted() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        let mut object = json!({"spec": {"metrics": [cpu]}});
        assert_eq!(targets(&object), "cpu: <unknown>/80%");
        object["status"] = json!({"currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12}}}]});
        assert_eq!(targets(&object), "cpu: 12%/80%");
    }
}
