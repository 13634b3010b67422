//! CronJobs (`pkg/apis/batch/validation`).

use serde_json::Value;

use super::{batch, join, metadata, not_negative, one_of, required, text};
use crate::api::cron::Schedule;
use crate::api::names;
use crate::api::status::Cause;

/// What a Job's name has room for, when eleven characters of time follow.
const LONGEST_NAME: usize = 52;

pub fn cron_job(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let name = text(&object["metadata"], "name");
    if old.is_none() && name.len() > LONGEST_NAME {
        let why = format!("must be no more than {LONGEST_NAME} characters");
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], &why));
    }
    let spec = &object["spec"];
    let known = old.map(|old| &old["spec"]);
    if required(&mut causes, spec, "schedule", "spec") {
        schedule(&mut causes, spec, known);
    }
    time_zone(&mut causes, spec, known);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(&mut causes, spec, field, "spec");
    }
    one_of(&mut causes, spec, "concurrencyPolicy", "spec", &["Allow", "Forbid", "Replace"]);
    let (job, path) = (&spec["jobTemplate"]["spec"], "spec.jobTemplate.spec");
    batch::spec(&mut causes, job, path);
    if !job["selector"].is_null() {
        causes.push(Cause::invalid(
            join(path, "selector"),
            &job["selector"],
            "`selector` will be auto-generated",
        ));
    }
    if job["manualSelector"] == true {
        let field = join(path, "manualSelector");
        causes.push(Cause::unsupported(field, &job["manualSelector"], &["nil", "false"]));
    }
    causes
}

fn schedule(causes: &mut Vec<Cause>, spec: &Value, old: Option<&Value>) {
    let words = text(spec, "schedule");
    if let Err(error) = Schedule::parse(words) {
        causes.push(Cause::invalid("spec.schedule", &spec["schedule"], &error.to_string()));
    }
    // One that was let in before zones had a field of their own stays.
    let was_there = old.is_some_and(|old| old["schedule"] == spec["schedule"]);
    if words.contains("TZ") && !was_there {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        causes.push(Cause::invalid("spec.schedule", &spec["schedule"], why));
    }
}

fn time_zone(causes: &mut Vec<Cause>, spec: &Value, old: Option<&Value>) {
    let Some(name) = spec["timeZone"].as_str() else { return };
    if old.is_some_and(|old| old["timeZone"] == spec["timeZone"]) {
        return;
    }
    let why = match name {
        "" => "timeZone must be nil or non-empty string".to_owned(),
        _ if name.eq_ignore_ascii_case("local") => "timeZone must be an explicit time zone as defined in \
            https://www.iana.org/time-zones"
            .to_owned(),
        _ if crate::sys::zone::named(name).is_none() => format!("unknown time zone {name}"),
        _ => return,
    };
    causes.push(Cause::invalid("spec.timeZone", &spec["timeZone"], &why));
}
