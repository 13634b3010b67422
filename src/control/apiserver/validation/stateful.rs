//! StatefulSets and ReplicationControllers (`pkg/apis/apps/validation`, `pkg/apis/core/validation`).

use serde_json::{Value, json};

use super::{join, metadata, not_negative, one_of, text, workload};
use crate::api::names;
use crate::api::status::Cause;

/// What of a StatefulSet may change.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub fn stateful_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    match text(spec, "podManagementPolicy") {
        "OrderedReady" | "Parallel" => {}
        "" => causes.push(Cause::required("spec.podManagementPolicy", "")),
        _ => {
            let why = "must be 'OrderedReady' or 'Parallel'";
            causes.push(Cause::invalid("spec.podManagementPolicy", &spec["podManagementPolicy"], why));
        }
    }
    update_strategy(&mut causes, &spec["updateStrategy"]);
    let retention = &spec["persistentVolumeClaimRetentionPolicy"];
    for when in ["whenDeleted", "whenScaled"] {
        let path = "spec.persistentVolumeClaimRetentionPolicy";
        one_of(&mut causes, retention, when, path, &["Delete", "Retain"]);
    }
    not_negative(&mut causes, &spec["ordinals"], "start", "spec.ordinals");
    // The rules of a selector's change are this kind's own.
    workload::workload(&mut causes, &with_claims(object), None, "statefulset", "StatefulSet");
    if old.is_some_and(|old| fixed(spec) != fixed(&old["spec"])) {
        let names: Vec<String> = CHANGEABLE[..6].iter().map(|field| format!("'{field}'")).collect();
        let why = format!(
            "updates to statefulset spec for fields other than {} and '{}' are forbidden",
            names.join(", "),
            CHANGEABLE[6]
        );
        causes.push(Cause::forbidden("spec", &why));
    }
    causes
}

/// The set with a volume for every claim its pods will have: containers may mount those.
fn with_claims(object: &Value) -> Value {
    let mut object = object.clone();
    let templates = object["spec"]["volumeClaimTemplates"].as_array().cloned().unwrap_or_default();
    let Some(pod) = object.pointer_mut("/spec/template/spec").filter(|pod| pod.is_object()) else {
        return object;
    };
    let mut volumes = pod["volumes"].as_array().cloned().unwrap_or_default();
    for claim in templates {
        let name = &claim["metadata"]["name"];
        volumes.retain(|volume| volume["name"] != *name);
        volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    }
    if !volumes.is_empty() {
        pod["volumes"] = volumes.into();
    }
    object
}

fn fixed(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        CHANGEABLE.iter().for_each(|field| drop(fields.remove(*field)));
        // A claim's status in a template is nobody's promise.
        for claim in
            fields.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut).into_iter().flatten()
        {
            claim.as_object_mut().and_then(|claim| claim.remove("status"));
        }
    }
    spec
}

fn update_strategy(causes: &mut Vec<Cause>, strategy: &Value) {
    let path = "spec.updateStrategy";
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "" => causes.push(Cause::required(path, "")),
        "OnDelete" if rolling.is_object() => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            causes.push(Cause::invalid(join(path, "rollingUpdate"), rolling, why));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            not_negative(causes, rolling, "partition", "spec.updateStrategy.rollingUpdate");
            let most = &rolling["maxUnavailable"];
            let field = "spec.updateStrategy.rollingUpdate.maxUnavailable";
            super::share(causes, most, field);
            if *most == 0 || *most == "0%" {
                causes.push(Cause::invalid(field, most, "cannot be 0"));
            }
        }
        _ => causes.push(Cause::invalid(path, strategy, "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

pub fn replication_controller(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let spec = &object["spec"];
    not_negative(&mut causes, spec, "minReadySeconds", "spec");
    not_negative(&mut causes, spec, "replicas", "spec");
    let selector = spec["selector"].as_object().filter(|selector| !selector.is_empty());
    let template = &spec["template"];
    let Some(selector) = selector else {
        causes.push(Cause::required("spec.selector", ""));
        return causes;
    };
    if template.is_null() {
        causes.push(Cause::required("spec.template", ""));
        return causes;
    }
    let labels = &template["metadata"]["labels"];
    if !selector.iter().all(|(key, value)| labels[key] == *value) {
        let labels = if labels.is_null() { json!({}) } else { labels.clone() };
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &labels, why));
    }
    workload::content(&mut causes, template, "spec.template");
    workload::restarts(&mut causes, &template["spec"], "ReplicationController");
    causes
}
