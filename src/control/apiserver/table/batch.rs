//! Tables of Jobs and CronJobs.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{self, AGE, NAME, integer, items, number, or_none, string, text, wide};
use super::workload::join;
use crate::api::age;
use crate::control::apiserver::registry::Column;

const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
const SELECTOR: Column = wide("Selector", "Label selector for pods.");

pub const JOB: &[Column] = &[
    NAME,
    text("Status", "Status of the job."),
    text(
        "Completions",
        "Completions specifies the desired number of successfully finished pods the job should be run with.",
    ),
    text("Duration", "Time required to complete the job."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let containers = items(object, "/spec/template/spec/containers");
    vec![
        cells::name(object),
        status(object).into(),
        completions(object).into(),
        duration(object, now).into(),
        cells::age(object, now),
        join(containers, "/name"),
        join(containers, "/image"),
        cells::selector(object, "/spec/selector"),
    ]
}

fn status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        items(job, "/status/conditions").iter().any(|one| one["type"] == kind && one["status"] == "True")
    };
    if holds("Complete") {
        return "Complete";
    }
    if holds("Failed") {
        return "Failed";
    }
    if job["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating";
    }
    let known = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    known.into_iter().find(|kind| holds(kind)).unwrap_or("Running")
}

fn completions(job: &Value) -> String {
    let succeeded = number(job, "/status/succeeded");
    match (job["spec"]["completions"].as_i64(), number(job, "/spec/parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel @ 2..) => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |pointer: &str| string(job, pointer).parse::<Timestamp>().ok();
    match (time("/status/startTime"), time("/status/completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => age::human(end.unwrap_or(now).as_second() - start.as_second()),
    }
}

pub const CRON_JOB: &[Column] = &[
    NAME,
    text("Schedule", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
    text(
        "Timezone",
        "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones.",
    ),
    text(
        "Suspend",
        "This flag tells the controller to suspend subsequent executions, it does not apply to already started \
         executions.  Defaults to false.",
    ),
    integer("Active", "A list of pointers to currently running jobs."),
    text("Last Schedule", "Information when was the last time the job was successfully scheduled."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let containers = items(object, "/spec/jobTemplate/spec/template/spec/containers");
    let last = match string(object, "/status/lastScheduleTime") {
        "" => "<none>".to_owned(),
        _ => cells::since(object, "/status/lastScheduleTime", now),
    };
    let suspended = match object["spec"]["suspend"].as_bool() {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    vec![
        cells::name(object),
        string(object, "/spec/schedule").into(),
        or_none(object, "/spec/timeZone"),
        suspended.into(),
        cells::count(object, "/status/active").into(),
        last.into(),
        cells::age(object, now),
        join(containers, "/name"),
        join(containers, "/image"),
        cells::selector(object, "/spec/jobTemplate/spec/selector"),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_job_shows_how_far_it_is() {
        let now = "2026-01-01T00:00:30Z".parse().unwrap();
        let mut job = json!({"metadata": {"name": "pi"}, "spec": {"parallelism": 3},
            "status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z"}});
        let cells = super::job(&job, now);
        assert_eq!((&cells[1], &cells[2], &cells[3]), (&json!("Running"), &json!("1/1 of 3"), &json!("30s")));
        job["spec"]["completions"] = json!(4);
        job["status"]["completionTime"] = json!("2026-01-01T00:00:12Z");
        job["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
        let cells = super::job(&job, now);
        assert_eq!((&cells[1], &cells[2], &cells[3]), (&json!("Complete"), &json!("1/4"), &json!("12s")));
    }
}
