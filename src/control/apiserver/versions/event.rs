//! Events in `events.k8s.io/v1`, kept as `v1`: the same fields by other names (`pkg/apis/events/v1`).

use serde_json::{Value, json};

use super::Form;

pub static EVENTS: Form = Form { group: "", version: "v1", presented: to_events, stored: to_core };

/// The names of an event's fields, in `v1` and in `events.k8s.io/v1`.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn renamed(
    mut object: Value,
    version: &str,
    names: impl Iterator<Item = (&'static str, &'static str)>,
) -> Value {
    if object["apiVersion"] == version {
        return object;
    }
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), json!(version));
        for (from, to) in names {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
    }
    object
}

pub fn to_events(object: Value) -> Value {
    renamed(object, "events.k8s.io/v1", RENAMED.into_iter())
}

pub fn to_core(object: Value) -> Value {
    renamed(object, "v1", RENAMED.into_iter().map(|(core, events)| (events, core)))
}

/// The name in `v1` of a field that can be selected by (`AddFieldLabelConversionsForEvent`).
pub fn selected(path: &str) -> String {
    match path.split_once('.') {
        Some(("regarding", rest)) => format!("involvedObject.{rest}"),
        None if path == "reportingController" => "reportingComponent".to_owned(),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_other_names_in_its_own_group() {
        let kept =
            json!({"apiVersion": "v1", "message": "hi", "involvedObject": {"name": "a"}, "reason": "R"});
        let shown = to_events(kept.clone());
        assert_eq!(
            (&shown["note"], &shown["regarding"]["name"], &shown["reason"]),
            (&json!("hi"), &json!("a"), &json!("R"))
        );
        assert_eq!(to_core(shown), kept);
    }
}
