//! ReplicaSets, Deployments, DaemonSets, ControllerRevisions.

use serde_json::{Value, json};

use super::{immutable, join, metadata, not_negative, one_of, pod, text};
use crate::api::names;
use crate::api::selector::LabelSelector;
use crate::api::status::Cause;

pub fn replica_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    workload(&mut causes, object, old, "deployment", "ReplicaSet");
    causes
}

pub fn deployment(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    workload(&mut causes, object, old, "deployment", "Deployment");
    let spec = &object["spec"];
    not_negative(&mut causes, spec, "revisionHistoryLimit", "spec");
    not_negative(&mut causes, spec, "progressDeadlineSeconds", "spec");
    let number = |field: &str| spec[field].as_i64();
    if let (Some(deadline), least) =
        (number("progressDeadlineSeconds"), number("minReadySeconds").unwrap_or_default())
        && deadline <= least
    {
        let field = "spec.progressDeadlineSeconds";
        causes.push(Cause::invalid(field, &json!(deadline), "must be greater than minReadySeconds"));
    }
    let strategy = &spec["strategy"];
    one_of(&mut causes, strategy, "type", "spec.strategy", &["Recreate", "RollingUpdate"]);
    match text(strategy, "type") {
        "Recreate" if strategy["rollingUpdate"].is_object() => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            causes.push(Cause::forbidden("spec.strategy.rollingUpdate", why));
        }
        "RollingUpdate" => rolling(&mut causes, &strategy["rollingUpdate"], "spec.strategy.rollingUpdate"),
        _ => {}
    }
    causes
}

pub fn daemon_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    workload(&mut causes, object, old, "daemonset", "DaemonSet");
    let strategy = &object["spec"]["updateStrategy"];
    one_of(&mut causes, strategy, "type", "spec.updateStrategy", &["RollingUpdate", "OnDelete"]);
    if strategy["type"] == "RollingUpdate" {
        rolling(&mut causes, &strategy["rollingUpdate"], "spec.updateStrategy.rollingUpdate");
    }
    causes
}

pub fn revision(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    match old {
        None => not_negative(&mut causes, object, "revision", ""),
        Some(old) => immutable(&mut causes, object, old, "data", ""),
    }
    causes
}

/// What they share: a selector that never changes, and a template it selects.
pub(super) fn workload(
    causes: &mut Vec<Cause>,
    object: &Value,
    old: Option<&Value>,
    empty: &str,
    kind: &str,
) {
    let spec = &object["spec"];
    not_negative(causes, spec, "replicas", "spec");
    not_negative(causes, spec, "minReadySeconds", "spec");
    let selector = &spec["selector"];
    let is_empty = ["matchLabels", "matchExpressions"].iter().all(|part| match &selector[*part] {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    });
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else if is_empty {
        let why = format!("empty selector is invalid for {empty}");
        causes.push(Cause::invalid("spec.selector", selector, &why));
    } else {
        metadata::selector(causes, selector, "spec.selector");
    }
    template(causes, spec, kind);
    if let Some(old) = old
        && *selector != old["spec"]["selector"]
    {
        causes.push(metadata::changed("spec.selector", selector));
    }
}

fn template(causes: &mut Vec<Cause>, spec: &Value, kind: &str) {
    let template = &spec["template"];
    if template.is_null() {
        causes.push(Cause::required("spec.template", ""));
        return;
    }
    let labels = &template["metadata"]["labels"];
    if let Ok(selector) = LabelSelector::from_object(Some(&spec["selector"]))
        && !selector.is_everything()
        && !selector.matches(labels)
        && !spec["selector"].is_null()
    {
        let labels = if labels.is_null() { json!({}) } else { labels.clone() };
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &labels, why));
    }
    content(causes, template, "spec.template");
    restarts(causes, &template["spec"], kind);
}

/// A template's own labels and pod, wherever the template is.
pub(super) fn content(causes: &mut Vec<Cause>, template: &Value, path: &str) {
    metadata::labels(causes, &template["metadata"]["labels"], &join(path, "labels"));
    metadata::annotations(causes, &template["metadata"]["annotations"], &join(path, "annotations"));
    pod::spec(causes, &template["spec"], &join(path, "spec"));
}

/// What is kept running for ever restarts always and has no deadline.
pub(super) fn restarts(causes: &mut Vec<Cause>, pod: &Value, kind: &str) {
    if matches!(text(pod, "restartPolicy"), "OnFailure" | "Never") {
        let field = "spec.template.spec.restartPolicy";
        causes.push(Cause::unsupported(field, &pod["restartPolicy"], &["Always"]));
    }
    if !pod["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        causes.push(Cause::forbidden("spec.template.spec.activeDeadlineSeconds", &why));
    }
}

/// Numbers or percentages, not both 0.
fn rolling(causes: &mut Vec<Cause>, bounds: &Value, path: &str) {
    let mut zero = 0;
    for field in ["maxUnavailable", "maxSurge"] {
        let (value, field) = (&bounds[field], join(path, field));
        match (value.as_i64(), value.as_str()) {
            (Some(number), _) if number < 0 => {
                causes.push(Cause::invalid(field, value, "must be greater than or equal to 0"));
            }
            (Some(number), _) => zero += usize::from(number == 0),
            (_, Some(text)) => match text.strip_suffix('%').and_then(|digits| digits.parse::<u32>().ok()) {
                None => causes.push(Cause::invalid(field, value, super::NO_PERCENT)),
                Some(percent) if percent > 100 => {
                    causes.push(Cause::invalid(field, value, "must not be greater than 100%"));
                }
                Some(percent) => zero += usize::from(percent == 0),
            },
            _ => zero += 1,
        }
    }
    if zero == 2 {
        let field = join(path, "maxUnavailable");
        causes.push(Cause::invalid(field, &bounds["maxUnavailable"], "may not be 0 when `maxSurge` is 0"));
    }
}
