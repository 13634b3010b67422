//! Events (`pkg/apis/core/validation/events.go`): few rules for `v1`, more for those made as `events.k8s.io/v1`.

use serde_json::{Value, json};

use super::{invalid_all, metadata, text};
use crate::api::names;
use crate::api::status::Cause;

/// The longest a reporter's instance, an action or a reason may be.
const LONGEST_WORD: usize = 128;
const LONGEST_NOTE: usize = 1024;

/// An event as it is stored, made or changed as `v1`.
pub fn event(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata::check(object, old, names::dns1123_subdomain);
    let (about, own) = (text(&object["involvedObject"], "namespace"), text(&object["metadata"], "namespace"));
    let timed = object["eventTime"].is_string();
    let belongs = match (about, timed) {
        // Events about cluster-scoped objects live in default.
        ("", false) => matches!(own, "" | "default"),
        ("", true) => matches!(own, "default" | "kube-system"),
        (about, _) => timed || about == own,
    };
    if !belongs {
        let field = "involvedObject.namespace";
        causes.push(Cause::invalid(field, &json!(about), "does not match event.namespace"));
    }
    if timed {
        reported(object, &mut causes);
    }
    causes
}

/// What a new-style event says of its reporter.
fn reported(object: &Value, causes: &mut Vec<Cause>) {
    let controller = text(object, "reportingComponent");
    if controller.is_empty() {
        causes.push(Cause::required("reportingController", ""));
    }
    causes.extend(invalid_all("reportingController", &json!(controller), names::qualified_name(controller)));
    for (field, longest) in [
        ("reportingInstance", LONGEST_WORD),
        ("action", LONGEST_WORD),
        ("reason", LONGEST_WORD),
        ("message", LONGEST_NOTE),
    ] {
        let own = text(object, field);
        if own.is_empty() && field != "message" {
            causes.push(Cause::required(field, ""));
        }
        if own.len() > longest {
            let why = format!("can have at most {longest} characters");
            causes.push(Cause::invalid(field, &json!(""), &why));
        }
    }
}

/// An event as it is stored, made or changed as `events.k8s.io/v1`.
pub fn new_event(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = event(object, old);
    let unset = |field: &str| matches!(&object[field], Value::Null) || object[field] == 0;
    if old.is_none_or(|old| old["series"] != object["series"]) {
        series(object, &mut causes);
    }
    if let Some(old) = old {
        for field in FIXED {
            if object[field] != old[field] {
                let named = if field == "reportingComponent" { "reportingController" } else { field };
                causes.push(Cause::invalid(named, &object[field], "field is immutable"));
            }
        }
        return causes;
    }
    if !object["eventTime"].is_string() {
        causes.push(Cause::required("eventTime", ""));
    }
    if !matches!(text(object, "type"), "Normal" | "Warning") {
        let why = format!("has invalid value: {}", text(object, "type"));
        causes.push(Cause::invalid("type", &json!(""), &why));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        if !unset(field) {
            causes.push(Cause::invalid(field, &json!(""), "needs to be unset"));
        }
    }
    let source = &object["source"];
    if !text(source, "component").is_empty() || !text(source, "host").is_empty() {
        causes.push(Cause::invalid("source", &json!(""), "needs to be unset"));
    }
    causes
}

/// What never changes of one that was made.
const FIXED: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

fn series(object: &Value, causes: &mut Vec<Cause>) {
    let series = &object["series"];
    if !series.is_object() {
        return;
    }
    if series["count"].as_i64().unwrap_or_default() < 2 {
        causes.push(Cause::invalid("series.count", &json!(""), "should be at least 2"));
    }
    if !series["lastObservedTime"].is_string() {
        causes.push(Cause::required("series.lastObservedTime", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_event_says_when_and_who_and_an_old_one_need_not() {
        let mut object = json!({"metadata": {"name": "a", "namespace": "default"}, "type": "Normal",
            "involvedObject": {"namespace": "default"}, "reason": "R"});
        assert!(event(&object, None).is_empty());
        assert_eq!(new_event(&object, None)[0].to_string(), "eventTime: Required value");
        object["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
        let texts: Vec<String> = event(&object, None).iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "reportingController: Required value");
        for (field, value) in
            [("reportingComponent", "a.b/c"), ("reportingInstance", "i"), ("action", "Acted")]
        {
            object[field] = json!(value);
        }
        assert!(new_event(&object, None).is_empty(), "{:?}", new_event(&object, None));
        let mut changed = object.clone();
        changed["action"] = json!("Other");
        assert_eq!(
            new_event(&changed, Some(&object))[0].to_string(),
            "action: Invalid value: \"Other\": field is immutable"
        );
    }
}
