//! Jobs and CronJobs.

use serde_json::{Value, json};

use super::super::Strategy;
use super::edit::{self, default, existing, items, map, set};
use super::{PLAIN, pod_defaults, selectable};
use crate::control::apiserver::table::batch as table;
use crate::control::apiserver::validation::{batch as validation, cron};

/// The label by which a Job finds its pods.
pub const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";

pub static JOB: Strategy = Strategy {
    default: |object| {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if let Some(metadata) = map(object, "metadata")
            && metadata["labels"].as_object().is_none_or(serde_json::Map::is_empty)
            && labels.as_object().is_some_and(|labels| !labels.is_empty())
        {
            set(metadata, "labels", labels);
        }
        map(object, "spec").into_iter().for_each(job_spec);
    },
    validate: validation::job,
    prepare_create: |object| {
        set(object, "status", json!({}));
        edit::set_generation(object, 1);
        generate_selector(object);
    },
    prepare_update: edit::keep_status_count_spec,
    fields: |object, path| match path {
        "status.successful" => Some(object["status"]["succeeded"].as_i64().unwrap_or(0).to_string()),
        _ => selectable(object, path, &[]),
    },
    columns: table::JOB,
    row: table::job,
};

pub static CRON_JOB: Strategy = Strategy {
    default: |object| {
        let Some(spec) = map(object, "spec") else { return };
        default(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        // What the Job itself will default is left to it, but for the pods.
        let template = map(spec, "jobTemplate").and_then(|template| map(template, "spec"));
        template.and_then(|job| existing(job, "template")).into_iter().for_each(pod_defaults::template);
    },
    validate: cron::cron_job,
    prepare_create: edit::new_with_generation,
    prepare_update: edit::keep_status_count_spec,
    columns: table::CRON_JOB,
    row: table::cron_job,
    ..PLAIN
};

fn job_spec(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, "completions", json!(1));
    }
    default(spec, "parallelism", 1);
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
    default(spec, "backoffLimit", limit);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let replace = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    default(spec, "podReplacementPolicy", replace);
    if let Some(policy) = existing(spec, "podFailurePolicy") {
        for rule in items(policy, "rules") {
            items(rule, "onPodConditions").for_each(|pattern| default(pattern, "status", "True"));
        }
    }
    existing(spec, "template").into_iter().for_each(pod_defaults::template);
}

/// A Job's pods are its own by its uid, unless it says that it chooses by itself.
fn generate_selector(object: &mut Value) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (object["metadata"]["uid"].clone(), object["metadata"]["name"].clone());
    let Some(spec) = map(object, "spec") else { return };
    let labels = existing(spec, "template")
        .and_then(|template| map(template, "metadata"))
        .and_then(|metadata| map(metadata, "labels"));
    if let Some(labels) = labels {
        let own = [
            ("controller-uid", &uid),
            (UID_LABEL, &uid),
            ("job-name", &name),
            ("batch.kubernetes.io/job-name", &name),
        ];
        own.into_iter().for_each(|(key, value)| default(labels, key, value.clone()));
    }
    if let Some(labels) = map(spec, "selector").and_then(|selector| map(selector, "matchLabels")) {
        default(labels, UID_LABEL, uid);
    }
}
