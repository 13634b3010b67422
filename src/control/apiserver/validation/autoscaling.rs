//! HorizontalPodAutoscalers (`pkg/apis/autoscaling/validation`).

use serde_json::Value;

use super::{each, join, metadata, not_negative, one_of, required, text};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::api::status::Cause;

const KINDS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
/// The longest anybody may look back.
const LONGEST_WINDOW: i64 = 3600;

pub fn autoscaler(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    let (least, most) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64().unwrap_or(0));
    if least.is_some_and(|least| least < 1) {
        let why = "must be greater than or equal to 1";
        causes.push(Cause::invalid("spec.minReplicas", &spec["minReplicas"], why));
    }
    if most < 1 {
        causes.push(Cause::invalid("spec.maxReplicas", &most.into(), "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        let why = "must be greater than or equal to `minReplicas`";
        causes.push(Cause::invalid("spec.maxReplicas", &most.into(), why));
    }
    target(&mut causes, &spec["scaleTargetRef"], "spec.scaleTargetRef");
    each(spec, "metrics", "spec").for_each(|(path, one)| metric(&mut causes, one, &path));
    for direction in ["scaleUp", "scaleDown"] {
        rules(&mut causes, &spec["behavior"][direction], &format!("spec.behavior.{direction}"));
    }
    causes
}

fn target(causes: &mut Vec<Cause>, target: &Value, path: &str) {
    for field in ["kind", "name"] {
        if required(causes, target, field, path) {
            let reasons = names::path_segment(text(target, field));
            causes.extend(super::invalid_all(&join(path, field), &target[field], reasons));
        }
    }
}

fn metric(causes: &mut Vec<Cause>, metric: &Value, path: &str) {
    let Some((kind, field)) = KINDS.iter().find(|(kind, _)| metric["type"] == *kind) else {
        if required(causes, metric, "type", path) {
            one_of(causes, metric, "type", path, &KINDS.map(|(kind, _)| kind));
        }
        return;
    };
    let (source, path) = (&metric[*field], join(path, field));
    if !source.is_object() {
        let why = format!("must populate information for the given metric source: {kind}");
        return causes.push(Cause::required(path, &why));
    }
    let (wanted, at) = (&source["target"], join(&path, "target"));
    if matches!(*kind, "Resource" | "ContainerResource") {
        required(causes, source, "name", &path);
        let (percent, average) = (&wanted["averageUtilization"], &wanted["averageValue"]);
        match (percent.is_null(), average.is_null()) {
            (true, true) => {
                let why = "must set either a target raw value or a target utilization";
                causes.push(Cause::required(join(&at, "averageUtilization"), why));
            }
            (false, false) => {
                let why = "may not set both a target raw value and a target utilization";
                causes.push(Cause::forbidden(join(&at, "averageValue"), why));
            }
            (false, true) if percent.as_i64().is_some_and(|number| number < 1) => {
                causes.push(Cause::invalid(
                    join(&at, "averageUtilization"),
                    percent,
                    "must be greater than 0",
                ));
            }
            _ => {}
        }
    } else if source["metric"]["name"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required(format!("{path}.metric.name"), "must specify a metric name"));
    }
    for field in ["value", "averageValue"] {
        let positive =
            |text: &str| Quantity::parse(text).is_ok_and(|own| !own.is_zero() && !own.is_negative());
        if wanted[field].as_str().is_some_and(|text| !positive(text)) {
            causes.push(Cause::invalid(join(&at, field), &wanted[field], "must be positive"));
        }
    }
}

fn rules(causes: &mut Vec<Cause>, rules: &Value, path: &str) {
    if !rules.is_object() {
        return;
    }
    not_negative(causes, rules, "stabilizationWindowSeconds", path);
    let window = &rules["stabilizationWindowSeconds"];
    if window.as_i64().is_some_and(|seconds| seconds > LONGEST_WINDOW) {
        let why = format!("must be less than or equal to {LONGEST_WINDOW}");
        causes.push(Cause::invalid(join(path, "stabilizationWindowSeconds"), window, &why));
    }
    one_of(causes, rules, "selectPolicy", path, &["Disabled", "Max", "Min"]);
    for (path, policy) in each(rules, "policies", path) {
        one_of(causes, policy, "type", &path, &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            if policy[field].as_i64().unwrap_or(0) < 1 {
                causes.push(Cause::invalid(join(&path, field), &policy[field], "must be greater than zero"));
            }
        }
    }
}
