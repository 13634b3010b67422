//! Ephemeral containers (`ValidatePodEphemeralContainersUpdate`): they are added, never changed, never taken
//! away, and may not have what only a container that is restarted can use.

use serde_json::Value;

use super::container::{self, Around};
use super::metadata::unique;
use super::{each, join, not_found, pod, text, volumes};
use crate::api::status::Cause;

const FIELD: &str = "spec.ephemeralContainers";
const MIRROR: &str = "kubernetes.io/config.mirror";
const FORBIDDEN: [&str; 8] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
    "restartPolicy",
];

/// What is wrong with this change of a pod's ephemeral containers.
pub fn update(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !new["metadata"]["annotations"][MIRROR].is_null() {
        causes.push(Cause::forbidden("", "static pods do not support ephemeral containers"));
    }
    let (spec, before) = (&new["spec"], &old["spec"]);
    let volumes = volumes::check(&mut Vec::new(), spec, "spec");
    let (mut seen, host_network) = (names(spec), spec["hostNetwork"] == true);
    for (path, one) in each(spec, "ephemeralContainers", "spec") {
        unique(&mut causes, &mut seen, &one["name"], join(&path, "name"));
        let around = Around { volumes: &volumes, host_network, only_starts: false };
        container::check(&mut causes, one, &path, &around);
        forbidden(&mut causes, one, &path);
        let target = text(one, "targetContainerName");
        if !target.is_empty() && !each(spec, "containers", "").any(|(_, own)| text(own, "name") == target) {
            causes.push(not_found(join(&path, "targetContainerName"), &one["targetContainerName"]));
        }
    }
    for (_, was) in each(before, "ephemeralContainers", "spec") {
        kept(&mut causes, was, spec);
    }
    causes
}

fn names(spec: &Value) -> Vec<String> {
    let lists = ["containers", "initContainers"];
    lists.iter().flat_map(|list| each(spec, list, "")).map(|(_, one)| text(one, "name").to_owned()).collect()
}

fn forbidden(causes: &mut Vec<Cause>, container: &Value, path: &str) {
    let why = "cannot be set for an Ephemeral Container";
    for field in FORBIDDEN {
        let empty = match &container[field] {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        };
        if !empty {
            causes.push(Cause::forbidden(join(path, field), why));
        }
    }
    for (path, mount) in each(container, "volumeMounts", path) {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !text(mount, field).is_empty()) {
            causes.push(Cause::forbidden(join(&path, field), why));
        }
    }
}

/// One that was there is still there, as it was.
fn kept(causes: &mut Vec<Cause>, was: &Value, spec: &Value) {
    let name = text(was, "name");
    match each(spec, "ephemeralContainers", "").find(|(_, one)| text(one, "name") == name) {
        None => {
            let why = format!("existing ephemeral containers {name:?} may not be removed\n");
            causes.push(Cause::forbidden(FIELD, &why));
        }
        Some((_, now)) if now != was => {
            let mut difference = String::new();
            pod::describe(was, now, "", &mut difference);
            let why = format!("existing ephemeral containers {name:?} may not be changed\n{difference}");
            causes.push(Cause::forbidden(FIELD, &why));
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(before: Value, after: Value) -> Vec<String> {
        let pod = |list| json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "x"}], "ephemeralContainers": list}});
        update(&pod(after), &pod(before)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_may_be_added_for_a_container_there_is() {
        let debug = json!([{"name": "debug", "image": "x", "targetContainerName": "web", "stdin": true, "resources": {}}]);
        assert_eq!(wrong(json!([]), debug), Vec::<String>::new());
        let other = json!([{"name": "debug", "image": "x", "targetContainerName": "db"}]);
        assert_eq!(
            wrong(json!([]), other),
            [r#"spec.ephemeralContainers[0].targetContainerName: Not found: "db""#]
        );
        let same = json!([{"name": "web", "image": "x"}]);
        assert_eq!(wrong(json!([]), same), [r#"spec.ephemeralContainers[0].name: Duplicate value: "web""#]);
    }

    #[test]
    fn none_is_changed_or_taken_away_or_given_a_probe() {
        let old = json!([{"name": "debug", "image": "x"}]);
        assert_eq!(
            wrong(old.clone(), json!([])),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be removed\n"
            ]
        );
        let changed = wrong(old.clone(), json!([{"name": "debug", "image": "y"}]));
        assert!(
            changed[0].contains("existing ephemeral containers \"debug\" may not be changed\n"),
            "{changed:?}"
        );
        let ports = json!([{"name": "debug", "image": "x"}, {"name": "b", "image": "x", "ports": [{"containerPort": 1}]}]);
        assert_eq!(
            wrong(old, ports),
            ["spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container"]
        );
    }
}
