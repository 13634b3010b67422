//! Jobs (`pkg/apis/batch/validation`).

use serde_json::{Value, json};

use super::{each, immutable, join, metadata, not_negative, one_of, required, text, workload};
use crate::api::names;
use crate::api::selector::LabelSelector;
use crate::api::status::Cause;

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// More indexes than that need a bound on how many run at a time.
const MOST_INDEXES: i64 = 100_000;

pub fn job(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let s = &object["spec"];
    spec(&mut causes, s, "spec");
    selector(&mut causes, object);
    if s["completionMode"] == "Indexed" && old.is_none() {
        // The last pod's name must be a host name.
        let last =
            format!("{}-{}", text(&object["metadata"], "name"), s["completions"].as_i64().unwrap_or(1) - 1);
        for why in names::dns1123_label(&last) {
            let why = format!("will not able to create pod with invalid DNS label: {last}: {why}");
            causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], &why));
        }
    }
    if let Some(old) = old {
        change(&mut causes, s, old);
    }
    causes
}

/// What may change once a Job is there: not much of it.
fn change(causes: &mut Vec<Cause>, new: &Value, old: &Value) {
    let before = &old["spec"];
    let elastic = new["completionMode"] == "Indexed"
        && new["completions"] == new["parallelism"]
        && before["completions"] == before["parallelism"];
    let fixed = [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ];
    if !elastic {
        immutable(causes, new, before, "completions", "spec");
    }
    fixed.into_iter().for_each(|field| immutable(causes, new, before, field, "spec"));
    // A Job that waits may still be told where to run.
    let waits = before["suspend"] == true && old["status"]["startTime"].is_null();
    let fixed = |template: &Value| {
        let mut template = template.clone();
        let parts: [(&str, &[&str]); 2] = [
            ("spec", &["nodeSelector", "tolerations", "schedulingGates", "affinity"]),
            ("metadata", &["labels", "annotations"]),
        ];
        for (part, fields) in parts.iter().filter(|_| waits) {
            if let Some(part) = template.get_mut(*part).and_then(Value::as_object_mut) {
                fields.iter().for_each(|field| drop(part.remove(*field)));
            }
        }
        template
    };
    if fixed(&new["template"]) != fixed(&before["template"]) {
        causes.push(Cause::invalid("spec.template", &new["template"], super::IMMUTABLE));
    }
}

fn selector(causes: &mut Vec<Cause>, object: &Value) {
    let (spec, labels) = (&object["spec"], &object["spec"]["template"]["metadata"]["labels"]);
    if spec["selector"].is_null() {
        return causes.push(Cause::required("spec.selector", ""));
    }
    metadata::selector(causes, &spec["selector"], "spec.selector");
    let Ok(chosen) = LabelSelector::from_object(Some(&spec["selector"])) else { return };
    if !chosen.matches(labels) {
        let labels = if labels.is_null() { json!({}) } else { labels.clone() };
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &labels, why));
    }
    let uid = text(&object["metadata"], "uid");
    if spec["manualSelector"] != true && !chosen.matches(&json!({UID_LABEL: uid, "controller-uid": uid})) {
        causes.push(Cause::invalid("spec.selector", &spec["selector"], "`selector` not auto-generated"));
    }
}

/// A Job's spec, its own or a CronJob's.
pub fn spec(causes: &mut Vec<Cause>, spec: &Value, path: &str) {
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    numbers.into_iter().for_each(|field| not_negative(causes, spec, field, path));
    one_of(causes, spec, "completionMode", path, &["Indexed", "NonIndexed"]);
    one_of(causes, spec, "podReplacementPolicy", path, &["Failed", "TerminatingOrFailed"]);
    indexes(causes, spec, path);
    let template = join(path, "template");
    workload::content(causes, &spec["template"], &template);
    let restart = text(&spec["template"]["spec"], "restartPolicy");
    if matches!(restart, "" | "Always") {
        let why = r#"valid values: "OnFailure", "Never""#;
        causes.push(Cause::required(format!("{template}.spec.restartPolicy"), why));
    }
    if spec["podFailurePolicy"].is_object() {
        if restart != "Never" {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            let value = &spec["template"]["spec"]["restartPolicy"];
            causes.push(Cause::invalid(format!("{template}.spec.restartPolicy"), value, why));
        }
        failure_policy(causes, &spec["podFailurePolicy"], &join(path, "podFailurePolicy"), &spec["template"]);
    }
}

fn indexes(causes: &mut Vec<Cause>, spec: &Value, path: &str) {
    let indexed = spec["completionMode"] == "Indexed";
    if indexed {
        match spec["completions"].as_i64() {
            None => {
                let why = "when completion mode is Indexed";
                causes.push(Cause::required(join(path, "completions"), why));
            }
            Some(many)
                if many > MOST_INDEXES && spec["parallelism"].as_i64().is_some_and(|n| n > MOST_INDEXES) =>
            {
                let why =
                    format!("must be less than or equal to {MOST_INDEXES} when completion mode is Indexed");
                causes.push(Cause::invalid(join(path, "parallelism"), &spec["parallelism"], &why));
            }
            Some(_) => {}
        }
    } else {
        for (field, why) in [
            ("backoffLimitPerIndex", "requires indexed completion mode"),
            ("successPolicy", "requires indexed completion mode"),
        ] {
            if !spec[field].is_null() {
                causes.push(Cause::invalid(join(path, field), &spec[field], why));
            }
        }
    }
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        let why = "when maxFailedIndexes is specified";
        causes.push(Cause::required(join(path, "backoffLimitPerIndex"), why));
    }
}

fn failure_policy(causes: &mut Vec<Cause>, policy: &Value, path: &str, template: &Value) {
    let names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| template["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    for (path, rule) in each(policy, "rules", path) {
        if required(causes, rule, "action", &path) {
            one_of(causes, rule, "action", &path, &["Count", "FailIndex", "FailJob", "Ignore"]);
        }
        let codes = &rule["onExitCodes"];
        let patterns = rule["onPodConditions"].as_array().is_some_and(|all| !all.is_empty());
        match (codes.is_object(), patterns) {
            (true, true) => {
                let why = "specifying both OnExitCodes and OnPodConditions is not supported";
                causes.push(Cause::invalid(path.as_str(), rule, why));
            }
            (false, false) => {
                let why = "specifying one of OnExitCodes and OnPodConditions is required";
                causes.push(Cause::invalid(path.as_str(), rule, why));
            }
            (true, false) => exit_codes(causes, codes, &join(&path, "onExitCodes"), &names),
            (false, true) => {}
        }
    }
}

fn exit_codes(causes: &mut Vec<Cause>, codes: &Value, path: &str, names: &[&str]) {
    if required(causes, codes, "operator", path) {
        one_of(causes, codes, "operator", path, &["In", "NotIn"]);
    }
    if codes["containerName"].as_str().is_some_and(|name| !names.contains(&name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        causes.push(Cause::invalid(join(path, "containerName"), &codes["containerName"], why));
    }
    let values: Vec<_> = each(codes, "values", path).collect();
    if values.is_empty() {
        let why = "at least one value is required";
        causes.push(Cause::invalid(join(path, "values"), &codes["values"], why));
    }
    for (path, value) in values {
        if codes["operator"] == "In" && *value == 0 {
            causes.push(Cause::invalid(path, value, "must not be 0 for the In operator"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::apiserver::registry;

    fn wrong(spec: Value, old: Option<Value>) -> Vec<String> {
        let strategy = registry::find("batch", "v1", "jobs").unwrap().strategy;
        let make = |spec: Value| {
            let mut job = json!({"metadata": {"name": "pi", "namespace": "a", "uid": "u"}, "spec": spec});
            (strategy.default)(&mut job);
            (strategy.prepare_create)(&mut job);
            job
        };
        let (job, old) = (make(spec), old.map(make));
        let causes = (strategy.validate)(&job, old.as_ref());
        causes.iter().map(|one| format!("{}: {}", one.field, one.message)).collect()
    }

    fn template(restart: &str) -> Value {
        json!({"spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "i",
            "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}]}})
    }

    #[test]
    fn a_job_must_end_and_its_work_stays_what_it_is() {
        let never = || json!({"template": template("Never")});
        assert_eq!(wrong(never(), None), [""; 0]);
        assert_eq!(
            wrong(json!({"template": template("Always")}), None),
            [r#"spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never""#]
        );
        let more = json!({"template": template("Never"), "completions": 3});
        assert_eq!(wrong(more, Some(never())), ["spec.completions: Invalid value: 3: field is immutable"]);
        let indexed = json!({"template": template("Never"), "completionMode": "Indexed", "parallelism": 2});
        assert_eq!(
            wrong(indexed, None),
            ["spec.completions: Required value: when completion mode is Indexed"]
        );
        let changed = wrong(json!({"template": template("OnFailure")}), Some(never()));
        assert!(
            changed[0].starts_with("spec.template: Invalid value: ")
                && changed[0].ends_with("field is immutable")
        );
    }
}
